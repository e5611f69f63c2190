"""ADK's own tools over an environment that is a box."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import anyio
import pytest
from google.adk.tools.environment import EnvironmentToolset

from anyspawn import Bubblewrap
from anyspawn.contrib.google_adk import BoxEnvironment
from cases import command_lines
from machine import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]  # ADK's own "experimental"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def environment():
    environment = BoxEnvironment(Bubblewrap(default_timeout=60), workdir="/work")
    await environment.initialize()
    yield environment
    await environment.close()


async def test_the_tools_of_a_toolset(environment):
    """What one tool writes, the others read, edit and run; a failing command is told."""
    tools = {
        tool.name: tool for tool in await EnvironmentToolset(environment=environment).get_tools()
    }

    async def use(word, **args):
        (tool,) = [tool for name, tool in tools.items() if word in name.lower()]
        return await tool.run_async(args=args, tool_context=None)

    assert (await use("write", path="a/b.txt", content="one two"))["status"] == "ok"
    edited = await use("edit", path="a/b.txt", old_string="two", new_string="three")
    assert edited["status"] == "ok"
    assert "one three" in str(await use("read", path="a/b.txt"))
    assert (await use("execute", command="cat a/b.txt; pwd"))["stdout"] == "one three/work\n"
    assert (await use("execute", command="exit 3"))["exit_code"] == 3
    assert (await use("read", path="none"))["status"] == "error"


async def test_a_timeout_is_told(environment):
    """What a command wrote before it timed out is there."""
    done = await environment.execute("echo begun; sleep 300", timeout=1)
    assert (done.timed_out, done.stdout) == (True, "begun\n")


async def test_a_cancelled_command_leaves_nothing(environment):
    """The command and what it started are gone when the cancelled call returns."""
    mark = f"300.{str(uuid.uuid4().int)[:12]}"
    command = asyncio.create_task(environment.execute(f"sleep {mark} & echo up >up; sleep {mark}"))
    with anyio.fail_after(30):
        while "up" not in await environment.box.list_dir():
            await anyio.sleep(0.01)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert not eventually(
        lambda: [pid for pid, argv in command_lines().items() if mark.encode() in argv]
    )


async def test_its_life(environment):
    """Both ends may be asked for twice; between them there is a box, else an error says so."""
    await environment.initialize()
    assert (environment.is_initialized, environment.working_dir) == (True, Path("/work"))
    await environment.write_file(Path("a"), b"\xff")
    assert await environment.read_file(Path("/work/a")) == b"\xff"
    with pytest.raises(FileNotFoundError):
        await environment.read_file(Path("none"))
    await environment.close()
    await environment.close()
    assert not environment.is_initialized
    with pytest.raises(RuntimeError, match="initialize"):
        await environment.execute("true")
