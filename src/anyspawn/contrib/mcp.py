"""MCP servers on stdio in any sandbox: a drop-in for `mcp.client.stdio.stdio_client`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TextIO

import anyio
from anyio.streams.text import TextReceiveStream
from mcp.client.stdio import StdioServerParameters, get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

import anyspawn

_GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)


@asynccontextmanager
async def stdio_client(
    server: StdioServerParameters,
    errlog: TextIO = sys.stderr,
    *,
    sandbox: anyspawn.Sandbox | str | None = None,
    grace: float = 2.0,
) -> AsyncIterator[tuple[Any, Any]]:
    """Start an MCP server in a sandbox, and give the streams for a ``ClientSession``.

    In a sandbox the server has only the variables of ``server.env``. After its stdin is closed it
    has ``grace`` seconds to exit, the same again after SIGTERM, and is then killed.
    """
    to_session, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def read(process: anyspawn.Process) -> None:
        rest, text = "", TextReceiveStream(process.stdout, server.encoding, "replace")
        with suppress(*_GONE):
            async with to_session:
                async for chunk in text:
                    *lines, rest = (rest + chunk).split("\n")
                    for line in lines:
                        try:
                            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                            await to_session.send(SessionMessage(message))
                        except ValueError as exc:
                            await to_session.send(exc)
        await process.stdout.aclose()  # what the server still writes is thrown away

    async def write(process: anyspawn.Process) -> None:
        async with from_session:
            with suppress(*_GONE):
                async for sent in from_session:
                    line = sent.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                    await process.stdin.send(line.encode(server.encoding))

    async def log(process: anyspawn.Process) -> None:
        async for chunk in process.stderr:
            errlog.write(chunk.decode(errors="replace"))

    env = (get_default_environment() if sandbox is None else {}) | (server.env or {})
    argv, cwd = [server.command, *server.args], None if server.cwd is None else str(server.cwd)
    opened = anyspawn.open_process(argv, sandbox=sandbox, env=env, cwd=cwd, grace=grace)
    async with opened as process, anyio.create_task_group() as tasks:
        for work in (read, write, log):
            tasks.start_soon(work, process)
        try:
            yield read_stream, write_stream
        finally:
            with anyio.CancelScope(shield=True):
                read_stream.close()
                write_stream.close()
                await process.stdin.aclose()
                with anyio.move_on_after(grace):
                    await process.wait()
                tasks.cancel_scope.cancel()
