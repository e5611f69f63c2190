"""The example of an MCP session, and calls to its server."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

MCP = Path(__file__).parents[1] / "examples" / "mcp"
SERVER = MCP / "calculator.py"


async def calculate(argv, sandbox):
    """List the tools of a server, and call one many times."""
    pytest.importorskip("mcp")
    spec = importlib.util.spec_from_file_location("session", MCP / "session.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with module.mcp_session(argv, sandbox) as session:
        assert [tool.name for tool in (await session.list_tools()).tools] == ["add"]
        for number in range(20):
            result = await session.call_tool("add", {"a": number, "b": 0.5})
            assert result.content[0].text == str(number + 0.5)
        await session.send_ping()
