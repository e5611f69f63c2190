"""ADK's own tools over an environment in a box, and an agent whose code runs in one."""

from __future__ import annotations

import asyncio
import base64
import uuid
from pathlib import Path

import anyio
import pytest
from google.adk.agents import LlmAgent
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, File
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.environment import EnvironmentToolset
from google.genai import types

from anyspawn import Bubblewrap
from anyspawn.contrib.google_adk import BoxCodeExecutor, BoxEnvironment
from cases import command_lines
from machine import eventually

# ADK warns that it is experimental
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]


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
    """Files that one tool writes can be read, edited and run by the others; a failing command is
    reported.
    """
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


async def test_what_a_command_leaves_running(environment):
    """It is still there for the next command."""
    await environment.execute("sleep 300 & echo $! >left")
    assert (await environment.execute('kill "$(cat left)"')).exit_code == 0


async def test_a_timeout_is_told(environment):
    """The output before the timeout is kept."""
    done = await environment.execute("echo begun; sleep 300", timeout=1)
    assert (done.timed_out, done.stdout) == (True, "begun\n")


async def test_a_cancelled_command_leaves_nothing(environment):
    """When the cancelled call returns, the command and its processes are gone."""
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
    """initialize and close can be called twice. Without a box in between, an error says so."""
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


class Says(BaseLlm):
    """A stand-in for a model: it answers with the next text and records its input."""

    answers: list[str]
    shown: list[str]

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002  ADK's signature
        self.shown.append(str(llm_request.contents[-1].parts))
        content = types.Content(role="model", parts=[types.Part(text=self.answers.pop(0))])
        yield LlmResponse(content=content)


async def test_code_of_an_agent():
    """The agent's code runs in a box. The model sees its output or its error, and continues."""
    answers = ["```python\nprint(6 * 7)\n```", "```python\n1 / 0\n```", "done"]
    model = Says(model="says", answers=answers, shown=[])
    agent = LlmAgent(name="a", model=model, code_executor=BoxCodeExecutor(sandbox=Bubblewrap()))
    runner = InMemoryRunner(agent)
    session = await runner.session_service.create_session(app_name=runner.app_name, user_id="u")
    asked = types.Content(role="user", parts=[types.Part(text="go")])
    async for _ in runner.run_async(user_id="u", session_id=session.id, new_message=asked):
        pass
    assert model.answers == []
    assert "42" in model.shown[1]
    assert "ZeroDivisionError" in model.shown[2]


async def test_what_code_comes_to():
    """Output on stderr is not a failure; a timeout, a status and an exception are reported. Input
    files are there, but nothing of an earlier run.
    """
    executor = BoxCodeExecutor(sandbox=Bubblewrap(), timeout_seconds=1)
    file = File("a.txt", base64.b64encode(b"one").decode())

    async def run(code, *files):
        return await asyncio.to_thread(
            executor.execute_code, None, CodeExecutionInput(code, list(files))
        )

    done = await run("import sys; print(open('a.txt').read()); print('!', file=sys.stderr)", file)
    assert (done.stdout, done.stderr, done.exit_code) == ("one\n", "", 0)
    assert "FileNotFoundError" in (await run("open('a.txt')")).stderr
    assert "status 3" in (await run("raise SystemExit(3)")).stderr
    done = await run("print('begun', flush=True)\nwhile True: pass")
    assert (done.stdout, "timed out" in done.stderr) == ("begun\n", True)
    with pytest.raises(ValueError, match="stateful"):
        BoxCodeExecutor(stateful=True)
