"""The messages to and from an MCP server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TextIO

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

import anyspawn
from anyspawn.contrib._common import GONE, lines

__all__ = ["log", "receive", "send"]


async def receive(
    process: anyspawn.Process, session: MemoryObjectSendStream[Any], encoding: str
) -> None:
    """Pass the server's messages to the session; another line becomes an exception."""
    with suppress(*GONE):
        async with session:
            async for line in lines(process.stdout, encoding):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    await session.send(SessionMessage(message))
                except ValueError as exc:
                    await session.send(exc)
    await process.stdout.aclose()  # ignore what the server still writes


async def send(
    process: anyspawn.Process, session: MemoryObjectReceiveStream[Any], encoding: str
) -> None:
    """Write the session's messages to the server."""
    with suppress(*GONE):
        async with session:
            async for sent in session:
                line = sent.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                await process.stdin.send(line.encode(encoding))


async def log(process: anyspawn.Process, file: TextIO) -> None:
    """Copy the server's stderr to a file."""
    with suppress(*GONE):
        async for chunk in process.stderr:
            file.write(chunk.decode(errors="replace"))
