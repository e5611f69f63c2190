"""deepagents' own test suite for sandboxes, over a box."""

from __future__ import annotations

import inspect
import uuid

import anyio
import anyio.from_thread
import pytest
from langchain_tests.integration_tests import SandboxIntegrationTests

from anyspawn import Bubblewrap, open_box
from anyspawn.contrib.deepagents import BoxBackend
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio
SANDBOX = Bubblewrap(default_timeout=60)
# langchain-tests expects a deepagents that does not overwrite files and that globs relative paths;
# these methods are deepagents' own.
DISAGREE = {
    "test_write_existing_file_fails",
    "test_glob",
    "test_glob_basic_pattern",
    "test_glob_with_directories",
    "test_glob_hidden_files_explicitly",
    "test_glob_with_character_class",
    "test_glob_with_question_mark",
}


class WithPython(BoxBackend):
    """The suite calls Python "python", which Debian does not have."""

    async def aexecute(self, command, **fields):
        return await super().aexecute(f'python() {{ python3 "$@"; }}; {command}', **fields)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def here():
    async with open_box(SANDBOX) as box:
        yield WithPython(box)


async def backend_of(box):
    return WithPython(box)


class TestStandard(SandboxIntegrationTests):
    """Blocking methods run in a thread beside the box's loop, async ones in that loop."""

    @pytest.fixture(scope="class")
    def sandbox(self):
        with (
            anyio.from_thread.start_blocking_portal() as portal,
            portal.wrap_async_context_manager(open_box(SANDBOX)) as box,
        ):
            # its resident starts with the first call, and stays from test to test
            portal.call(box.spawn, ["true"])
            yield portal.call(backend_of, box)

    @pytest.fixture
    def sandbox_backend(self, request, sandbox):
        if request.node.originalname in DISAGREE:
            request.applymarker(pytest.mark.xfail(strict=True))
        if inspect.iscoroutinefunction(request.function):
            return request.getfixturevalue("here")
        return sandbox


async def test_a_cancelled_command_leaves_nothing(here):
    """When the cancelled call returns, the command and its processes are gone."""
    mark = f"300.{str(uuid.uuid4().int)[:12]}"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.aexecute, f"sleep {mark} & echo up >up; sleep {mark}")
        with anyio.fail_after(30):
            while "up" not in await here.box.list_dir():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert not eventually(
        lambda: [pid for pid, argv in command_lines().items() if mark.encode() in argv]
    )


async def test_what_a_command_leaves_running(here):
    """It is still there for the next command."""
    await here.aexecute("sleep 300 & echo $! >left")
    assert (await here.aexecute('kill "$(cat left)"')).exit_code == 0


async def test_a_timeout_is_told(here):
    """A command that times out gives status 124, its output so far, and the reason."""
    done = await here.aexecute("echo begun; sleep 300", timeout=1)
    assert (done.exit_code, done.output.startswith("begun\n")) == (124, True)
    assert "timed out" in done.output


async def test_a_blocking_method_in_the_loop_of_the_box(here):
    """The method would wait for itself, so the error says what to call instead."""
    with pytest.raises(RuntimeError, match="await the 'a' method"):
        here.execute("true")
