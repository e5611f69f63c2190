"""MCP servers on stdio in any sandbox: a drop-in for `mcp.client.stdio.stdio_client`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TextIO

import anyio

import anyspawn
from anyspawn.contrib._common import finish, needs

with needs("mcp"):
    from mcp.client.stdio import StdioServerParameters, get_default_environment
    from mcp.shared.message import SessionMessage

    from anyspawn.contrib._mcp_messages import log, receive, send


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
    env = (get_default_environment() if sandbox is None else {}) | (server.env or {})
    argv, cwd = [server.command, *server.args], None if server.cwd is None else str(server.cwd)
    opened = anyspawn.open_process(argv, sandbox=sandbox, env=env, cwd=cwd, grace=grace)
    async with opened as process, anyio.create_task_group() as tasks:
        tasks.start_soon(receive, process, to_session, server.encoding)
        tasks.start_soon(send, process, from_session, server.encoding)
        tasks.start_soon(log, process, errlog)
        try:
            yield read_stream, write_stream
        finally:
            with anyio.CancelScope(shield=True):
                read_stream.close()
                write_stream.close()
                await finish(process, grace)
                tasks.cancel_scope.cancel()
