"""A session with an MCP server that runs in a sandbox; run it to see one."""

from __future__ import annotations

from pathlib import Path

import anyio
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters

from anyspawn import Bubblewrap
from anyspawn.contrib.mcp import stdio_client

SERVER = str(Path(__file__).parents[1] / "mcp" / "calculator.py")


async def main() -> None:
    server = StdioServerParameters(command="python3", args=[SERVER], env={"TOKEN": "secret"})
    async with (
        stdio_client(server, sandbox=Bubblewrap(readonly=[SERVER])) as streams,
        ClientSession(*streams) as session,
    ):
        await session.initialize()
        print([tool.name for tool in (await session.list_tools()).tools])


if __name__ == "__main__":
    anyio.run(main)
