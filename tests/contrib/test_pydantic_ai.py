"""Pydantic AI's own test suite for workspaces over a box, and its test model with guarded tools."""

from __future__ import annotations

import sys
import uuid

import pytest
from pydantic_ai import Agent, FunctionToolset
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models.test import TestModel
from pydantic_ai.workspaces import Workspace, WorkspaceOutputLimitError, WorkspaceUnavailableError
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from anyspawn import Bubblewrap, open_box, start_box
from anyspawn.contrib.pydantic_ai import BoxBackend, GuardedToolset
from anyspawn.hooks import ExecToolHook, HookRunner
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio
SANDBOX = Bubblewrap(default_timeout=60)


@pytest.fixture
def anyio_backend():
    """Agents of Pydantic AI support only asyncio."""
    return "asyncio"


@pytest.fixture
async def backend():
    async with open_box(SANDBOX) as box:
        yield BoxBackend(box)


class TestConformance(WorkspaceBackendSuite):
    @pytest.fixture
    def backend(self, backend):
        return backend

    @pytest.fixture
    async def destructive_backend(self):
        box = await start_box(SANDBOX)
        yield lambda: BoxBackend(box)
        await box.aclose()

    @pytest.fixture
    def destroy_environment(self):
        async def destroy(backend):
            await backend.box.aclose()

        return destroy


async def test_what_a_command_leaves_ends_with_the_box():
    """A background process is still there for the next command, and is killed with the box."""
    mark = f"300.{str(uuid.uuid4().int)[:12]}"
    async with open_box(SANDBOX) as box:
        backend = BoxBackend(box)
        done = await backend.run(f"sleep {mark} & echo $!", shell=True, timeout=30)
        assert (await backend.run(["kill", "-0", done.stdout.strip()])).exit_code == 0
    assert not eventually(
        lambda: [pid for pid, argv in command_lines().items() if mark.encode() in argv]
    )


async def test_too_much_output(backend):
    """Output beyond the limit is an error with its beginning, not a truncated success."""
    with pytest.raises(WorkspaceOutputLimitError) as caught:
        await backend.run("yes | head -c 20000000", shell=True)
    assert caught.value.stdout.startswith("y\n")


async def test_a_box_that_has_ended():
    box = await start_box(SANDBOX)
    await box.aclose()
    with pytest.raises(WorkspaceUnavailableError):
        await Workspace(BoxBackend(box)).run(["true"])


BEFORE = """
import json, sys
request = json.load(sys.stdin)["request"]
request["Args"]["text"] += "!"
print(json.dumps({"allow": request["Name"] != "secret", "reason": "not yours", "payload": request}))
"""
AFTER = """
import json, sys
response = json.load(sys.stdin)["response"]
print(json.dumps({"allow": response["Content"] != "b!", "reason": "withheld"}))
"""


async def test_hooks_guard_tools():
    """A hook can change arguments. A denial before the call keeps the tool from running, one after
    it hides the result; the model sees the reasons.
    """
    ran = []

    def public(text: str) -> str:
        ran.append(("public", text))
        return text

    def secret(text: str) -> str:
        ran.append(("secret", text))
        return text

    def result(text: str) -> str:
        ran.append(("result", text))
        return "b!"

    hooks = [
        ExecToolHook(
            name="before", command=sys.executable, args=["-c", BEFORE],
            phases=["before_execution"], rewrites=True,
        ),
        ExecToolHook(
            name="after", command=sys.executable, args=["-c", AFTER], phases=["after_execution"],
        ),
    ]  # fmt: skip
    async with HookRunner(hooks) as runner:
        tools = GuardedToolset(FunctionToolset([public, secret, result]), runner)
        done = await Agent(TestModel(), toolsets=[tools]).run("go")
    parts = [part for message in done.all_messages() for part in message.parts]
    told = {part.tool_name: part for part in parts if isinstance(part, ToolReturnPart)}
    assert ran == [("public", "a!"), ("result", "a!")]
    assert told["public"].content == "a!"
    assert "not yours" in str(told["secret"].content)
    assert "withheld" in str(told["result"].content)
