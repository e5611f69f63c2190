"""An MCP session with a server on stdio that runs in a sandbox; run it to see one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import ClientSession
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

import anyspawn

LONGEST = 16 * 2**20
SERVER = Path(__file__).with_name("calculator.py")


@asynccontextmanager
async def mcp_session(
    argv: Sequence[str], sandbox: anyspawn.Sandbox
) -> AsyncIterator[ClientSession]:
    """Start an MCP server in a sandbox, and give a session with it; the server ends with the
    block.
    """
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        lines = BufferedByteReceiveStream(process.stdout)
        async with to_session:
            try:
                while True:
                    line = await lines.receive_until(b"\n", LONGEST)
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    await to_session.send(SessionMessage(message))
            except (anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass  # the server has ended, or the session

    async def write() -> None:
        async with from_session:
            async for sent in from_session:
                line = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(line.encode() + b"\n")

    async def drain() -> None:
        async for _ in process.stderr:  # a server's diagnostics; left unread they would hold it up
            pass

    async with (
        anyspawn.open_process(argv, sandbox=sandbox) as process,
        anyio.create_task_group() as tasks,
    ):
        for work in (read, write, drain):
            tasks.start_soon(work)
        async with from_server, to_server, ClientSession(from_server, to_server) as session:
            await session.initialize()
            yield session
        tasks.cancel_scope.cancel()


async def main() -> None:
    box = anyspawn.Bubblewrap(readonly=[str(SERVER)])
    async with mcp_session(["python3", str(SERVER)], box) as session:
        result = await session.call_tool("add", {"a": 20, "b": 22})
        print(result.content)


if __name__ == "__main__":
    anyio.run(main)
