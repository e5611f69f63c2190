"""An MCP server in containers, with the real client library."""

from __future__ import annotations

import pytest

from anyspawn import DockerExec, DockerRun
from engines import made_by_us, processes_in
from machine import eventually
from mcp_servers import SERVER, calculate

pytestmark = pytest.mark.anyio


async def test_a_session_in_a_fresh_container():
    """The client lists and calls the tools, and the container is gone after the block."""
    box = DockerRun(
        "python:3-slim", mounts=[f"{SERVER}:/server.py:ro"], network="none", default_timeout=60
    )
    await calculate(["python3", "/server.py"], box)
    assert made_by_us() == []


async def test_a_session_in_a_container_that_runs(python):
    """The supervisor passes the conversation on unchanged."""
    await calculate(["python3", "-c", SERVER.read_text()], DockerExec(python, default_timeout=60))
    assert not eventually(lambda: processes_in(python))
