"""The SDK's own client over a box, with a stand-in for its CLI; hooks judge its tools."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    CLIConnectionError,
    ProcessError,
    ResultMessage,
    query,
)

from anyspawn import Bubblewrap, Direct, open_box
from anyspawn.contrib.claude_agent_sdk import BoxTransport, tool_hooks
from anyspawn.hooks import ExecToolHook, HookRunner
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio
CLI = Path(__file__).with_name("fake_claude.py")


@pytest.fixture
def mark():
    mark = str(uuid.uuid4().int)[:12]
    yield mark
    assert not eventually(
        lambda: [pid for pid, argv in command_lines().items() if f"300.{mark}".encode() in argv]
    )


@pytest.fixture
async def box(mark):
    async with open_box(Bubblewrap(readonly=[str(CLI)])) as box:
        yield box


async def ask(box, prompt, **options):
    """Send one prompt and return the result."""
    options = ClaudeAgentOptions(cli_path=str(CLI), **options)
    transport = BoxTransport(box, options)
    with anyio.fail_after(60):
        asked = query(prompt=json.dumps(prompt), options=options, transport=transport)
        (result,) = [
            message.result async for message in asked if isinstance(message, ResultMessage)
        ]
    return result


@pytest.mark.parametrize(
    "place", [Direct(), Bubblewrap(readonly=[str(CLI)])], ids=["here", "bwrap"]
)
async def test_a_query(place, monkeypatch):
    """The CLI gets the options and the variables of `env`; in a sandbox it gets no others. Its
    other output is ignored.
    """
    monkeypatch.setenv("SECRET", "of the host")
    async with open_box(place) as box:
        options = {"env": {"TOKEN": "x"}, "model": "m1", "cwd": box.workdir}
        told = json.loads(await ask(box, {"say": "not JSON"}, **options))
        assert told["argv"][told["argv"].index("--model") + 1] == "m1"
        assert (told["TOKEN"], told["PWD"]) == ("x", box.workdir)
        assert ("SECRET" in told) is (place.name == "direct")


async def test_a_client(box):
    """Several prompts of one client reach the same CLI, and its files stay in the box."""
    options = ClaudeAgentOptions(cli_path=str(CLI))
    with anyio.fail_after(60):
        async with ClaudeSDKClient(options, BoxTransport(box, options)) as client:
            shown = []
            for command in ("echo $PPID >a; cat a", "cat a; echo $PPID"):
                await client.query(json.dumps({"bash": command}))
                results = [message async for message in client.receive_response()]
                shown += json.loads(results[-1].result)["stdout"].split()
    assert len(shown) == 3
    assert len(set(shown)) == 1
    assert "a" in await box.list_dir()


async def test_what_goes_wrong(box):
    """A CLI that is missing or fails raises an error of the SDK that says why; so does malformed
    output.
    """
    options = ClaudeAgentOptions(cli_path="no-such-claude")
    with pytest.raises(CLIConnectionError, match="no-such-claude"):
        await BoxTransport(box, options).connect()
    lines = []
    with pytest.raises(ProcessError, match="no credit") as caught:
        await ask(box, {"complain": "no credit", "exit": 3}, stderr=lines.append)
    assert (caught.value.exit_code, lines) == (3, ["no credit"])
    with pytest.raises(Exception, match="JSON"):
        await ask(box, {"say": "{broken"})
    with pytest.raises(Exception, match="maximum buffer size"):
        await ask(box, {"say": "x" * 5000}, max_buffer_size=4000)


async def test_the_end(box, mark):
    """A CLI that ignores the end of its input and SIGTERM is killed with all its processes. Closing
    twice does nothing.
    """
    options = ClaudeAgentOptions(cli_path=str(CLI))
    transport = BoxTransport(box, options, grace=0.3)
    with anyio.fail_after(60):
        await transport.close()
        await transport.connect()
        message = {"type": "user", "message": {"content": json.dumps({"hang": mark})}}
        await transport.write(json.dumps(message) + "\n")
        async with aclosing(transport.read_messages()) as messages:
            assert (await anext(messages))["subtype"] == "hangs"
        await transport.close()
        await transport.close()
    assert not transport.is_ready()


@pytest.mark.parametrize("times", [1, 4])
async def test_native_cancellation(box, mark, times, anyio_backend_name):
    """However often the client's task is cancelled, the CLI and its processes are gone."""
    if anyio_backend_name != "asyncio":
        return
    up = asyncio.Event()

    async def use():
        options = ClaudeAgentOptions(cli_path=str(CLI))
        transport = BoxTransport(box, options, grace=0.3)
        async with ClaudeSDKClient(options, transport) as client:
            await client.query(json.dumps({"hang": mark}))
            async for _ in client.receive_messages():
                up.set()

    task = asyncio.create_task(use())
    await asyncio.wait_for(up.wait(), 60)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)


BEFORE = """
import json, sys
request = json.load(sys.stdin)["request"]
command = request["Args"]["command"]
request["Args"]["command"] = command.replace("one", "two")
print(json.dumps({"allow": "rm" not in command, "reason": "not here", "payload": request}))
"""
AFTER = """
import json, sys
response = json.load(sys.stdin)["response"]
said = response["Error"] or response["Content"]["stdout"]
response["Content"] = {"stdout": said.replace("card", "****")}
payload = None if response["Error"] or "card" not in said else response
print(json.dumps({"allow": "secret" not in said, "reason": "withheld", "payload": payload}))
"""


def hook(code, phase):
    return ExecToolHook(
        name=phase, command=sys.executable, args=["-c", code], phases=[phase], rewrites=True
    )


async def test_hooks_judge_tools(box):
    """A hook can change arguments and results. A denial keeps the tool from running, or hides its
    result, even that of a failure, from the model.
    """
    hooks = [hook(BEFORE, "before_execution"), hook(AFTER, "after_execution")]
    prompts = (
        ("echo one", '{"stdout": "two\\n"}'),
        ("echo card", '{"stdout": "****\\n"}'),
        ("touch ran; rm -r /nowhere", "denied: not here"),
        ("echo secret", "stopped: withheld"),
        ("echo secret >&2; false", "stopped: withheld"),
        ("echo failed >&2; false", "failed\n"),
    )
    async with HookRunner(hooks) as runner:
        options = ClaudeAgentOptions(cli_path=str(CLI), hooks=tool_hooks(runner))
        async with ClaudeSDKClient(options, BoxTransport(box, options)) as client:
            for command, shown in prompts:
                await client.query(json.dumps({"bash": command}))
                results = [message async for message in client.receive_response()]
                assert results[-1].result == shown
    assert "ran" not in await box.list_dir()


async def test_hooks_that_cannot_be_asked(box):
    """If the hooks cannot be asked, the tool does not run."""
    runner = HookRunner([hook(BEFORE, "before_execution")])
    assert "stopped" in await ask(box, {"bash": "touch ran"}, hooks=tool_hooks(runner))
