"""Runs of the Agents SDK with its own scripted model: a shell in a box, and guarded tools."""

from __future__ import annotations

import asyncio
import sys
import uuid

import anyio
import pytest
from agents import Agent, RunConfig, Runner, ShellTool, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses.response_function_shell_tool_call import (
    Action,
    ResponseFunctionShellToolCall,
)

from anyspawn import Bubblewrap, open_box
from anyspawn.contrib.openai_agents import shell_executor, tool_guardrail
from anyspawn.hooks import ExecToolHook, HookRunner
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio
CONFIG = RunConfig(tracing_disabled=True)
GUARD = """
import json, sys
request = json.load(sys.stdin)["request"]
if request["Args"]["text"] == "change": request["Args"]["text"] = "changed"
print(json.dumps({"allow": request["Args"]["text"] != "bad", "reason": "not that", "payload": request}))
"""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def box():
    async with open_box(Bubblewrap(default_timeout=60), workdir="/work") as box:
        yield box


def shell_agent(box, *commands, timeout_ms=None):
    call = ResponseFunctionShellToolCall(
        id="1", call_id="1", status="completed", type="shell_call",
        action=Action(commands=list(commands), timeout_ms=timeout_ms),
    )  # fmt: skip
    model = ScriptedModel([[call], [assistant_message("done")]])
    return Agent("a", model=model, tools=[ShellTool(executor=shell_executor(box))])


def shell_output(result):
    (item,) = [item for item in result.to_input_list() if item.get("type") == "shell_call_output"]
    return [(each["stdout"], each["stderr"], each["outcome"]) for each in item["output"]]


async def test_a_shell_in_a_box(box):
    """Commands share the box with what the earlier ones left running, and the model sees the output
    and status of each.
    """
    agent = shell_agent(
        box, "sleep 300 & echo $! >a", 'kill "$(cat a)" && pwd', "echo no >&2; exit 3"
    )
    assert shell_output(await Runner.run(agent, "go", run_config=CONFIG)) == [
        ("", "", {"type": "exit", "exit_code": 0}),
        ("/work\n", "", {"type": "exit", "exit_code": 0}),
        ("", "no\n", {"type": "exit", "exit_code": 3}),
    ]


async def test_a_timeout_is_the_last_command(box):
    """The timeout is reported with the output so far, and no further command runs."""
    agent = shell_agent(box, "echo begun; sleep 300", "touch after", timeout_ms=1000)
    ((stdout, _, outcome),) = shell_output(await Runner.run(agent, "go", run_config=CONFIG))
    assert (stdout, outcome["type"]) == ("begun\n", "timeout")
    assert await box.list_dir() == []


async def test_a_cancelled_run_leaves_nothing(box):
    """When the cancelled run returns, the command and its processes are gone."""
    mark = f"300.{str(uuid.uuid4().int)[:12]}"
    agent = shell_agent(box, f"sleep {mark} & echo up >up; sleep {mark}")
    run = asyncio.create_task(Runner.run(agent, "go", run_config=CONFIG))
    with anyio.fail_after(30):
        while "up" not in await box.list_dir():
            await anyio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not eventually(
        lambda: [pid for pid, argv in command_lines().items() if mark.encode() in argv]
    )


async def test_hooks_guard_tools():
    """A denied tool does not run, and neither does one whose arguments a hook would change, since a
    guardrail cannot change them.
    """
    ran = []
    hook = ExecToolHook(name="guard", command=sys.executable, args=["-c", GUARD], rewrites=True)
    async with HookRunner([hook]) as hooks:

        @function_tool(tool_input_guardrails=[tool_guardrail(hooks)])
        def say(text: str) -> str:
            ran.append(text)
            return text

        texts = ("good", "bad", "change")
        calls = [function_call("say", {"text": text}, call_id=text) for text in texts]
        model = ScriptedModel([calls, [assistant_message("done")]])
        result = await Runner.run(Agent("a", model=model, tools=[say]), "go", run_config=CONFIG)
    told = {
        item["call_id"]: item["output"]
        for item in result.to_input_list()
        if item.get("type") == "function_call_output"
    }
    assert ran == ["good"]
    assert told["good"] == "good"
    assert "not that" in told["bad"]
    assert "other arguments" in told["change"]
