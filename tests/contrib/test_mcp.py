"""mcp's own session over our client, with hostile servers and cancellation; nothing is
left behind.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
import uuid
from pathlib import Path

import anyio
import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters

from anyspawn import Bubblewrap
from anyspawn.contrib.mcp import stdio_client
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio
SERVER = Path(__file__).with_name("hostile_server.py")
PYTHON = "/usr/bin/python3"


@pytest.fixture(params=[None, Bubblewrap(readonly=[str(SERVER.parent)])], ids=["direct", "bwrap"])
def sandbox(request):
    return request.param


@pytest.fixture
def mark():
    mark = str(uuid.uuid4().int)[:12]
    yield mark
    assert not eventually(
        lambda: [pid for pid, argv in command_lines().items() if f"300.{mark}".encode() in argv]
    )


def parameters(kind, mark):
    python = PYTHON if os.path.exists(PYTHON) else sys.executable
    return StdioServerParameters(command=python, args=[str(SERVER), kind, mark])


@pytest.mark.parametrize("kind", ["good", "junk", "hang", "holder", "daemon", "noisy", "big"])
async def test_a_session(kind, mark, sandbox):
    """Calls are answered whatever else the server writes, and nothing of it is left."""
    if kind == "daemon" and sandbox is None:
        pytest.xfail("a daemon that closed its streams is beyond Direct")
    with anyio.fail_after(60), open(os.devnull, "w") as errlog:
        async with (
            stdio_client(parameters(kind, mark), errlog, sandbox=sandbox, grace=0.5) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["t"]
            result = await session.call_tool("t", {})
            assert len(result.content[0].text) == (2_000_000 if kind == "big" else 2)


async def test_a_server_that_dies(mark, sandbox):
    """The call that waits for the server fails instead of hanging."""
    with anyio.fail_after(60), open(os.devnull, "w") as errlog, pytest.raises(Exception):  # noqa: B017, PT011  mcp's own
        async with (
            stdio_client(parameters("die", mark), errlog, sandbox=sandbox) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            await session.call_tool("t", {})


def test_the_example(capsys):
    """The example lists the tools of a server in a sandbox."""
    example = Path(__file__).parents[2] / "examples" / "runtimes" / "mcp_session.py"
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out == "['add']\n"


@pytest.mark.parametrize("kind", ["slow", "stubborn"])
@pytest.mark.parametrize("times", [1, 2, 4])
async def test_native_cancellation(kind, times, mark, sandbox, anyio_backend_name):
    """However often the task is cancelled during a call, it ends, and the server is gone."""
    if anyio_backend_name != "asyncio":
        return
    up = asyncio.Event()

    async def use():
        with open(os.devnull, "w") as errlog:
            client = stdio_client(parameters(kind, mark), errlog, sandbox=sandbox, grace=0.5)
            async with client as streams, ClientSession(*streams) as session:
                await session.initialize()
                up.set()
                await session.call_tool("t", {})

    task = asyncio.create_task(use())
    await up.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
