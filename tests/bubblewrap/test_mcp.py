"""An MCP server in Bubblewrap, with the real client library."""

from __future__ import annotations

import os

import pytest

from anyspawn import Bubblewrap
from machine import MARK, bubblewrap_works, processes_with
from mcp_servers import SERVER, calculate

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]


async def test_a_session():
    """The client lists and calls the tools, and the server is gone after the block."""
    box = Bubblewrap(readonly=[str(SERVER)], share_env=[MARK], default_timeout=60)
    await calculate(["python3", str(SERVER)], box)
    assert processes_with(os.environ[MARK]) == []
