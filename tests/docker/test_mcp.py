"""An MCP server in containers, and the real client library."""

from __future__ import annotations

import pytest

from anyspawn import DockerExec, DockerRun
from engines import made_by_us, processes_in
from machine import eventually
from mcp_servers import SERVER, calculate

pytestmark = pytest.mark.anyio


async def test_a_session_in_a_fresh_container():
    """Its tools are listed and called; the container is gone with the block."""
    box = DockerRun(
        "python:3-slim", mounts=[f"{SERVER}:/server.py:ro"], network="none", default_timeout=60
    )
    await calculate(["python3", "/server.py"], box)
    assert made_by_us() == []


async def test_a_session_in_a_container_that_runs(python):
    """By way of the supervisor, which hands on a conversation as it is."""
    await calculate(["python3", "-c", SERVER.read_text()], DockerExec(python, default_timeout=60))
    assert not eventually(lambda: processes_in(python))
