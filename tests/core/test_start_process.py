"""A live process without a block: started in one task, closed in another, and never left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import anyio
import pytest

import anyspawn
from anyspawn import (
    Bubblewrap,
    Cleanup,
    Command,
    ConfigError,
    Direct,
    NotStartedError,
    SpawnTimeoutError,
    start_process,
)
from machine import eventually, processes_with

pytestmark = pytest.mark.anyio

MODES = {"direct": Direct(), "bubblewrap": Bubblewrap()}
TREE = ["sh", "-c", "setsid sleep 999 & echo up; sleep 999"]


def tree(mark):
    """Return a command whose processes `processes_with` finds by a mark."""
    return Command(TREE, env={"TREE": mark})


@pytest.fixture(params=MODES)
def sandbox(request):
    return MODES[request.param]


async def in_another_task(call):
    """Run a call in a new task that ends with the call, and return its result."""
    result = []

    async def task():
        result.append(await call())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
    return result[0]


async def test_started_in_one_task_and_closed_in_another(sandbox):
    """The tasks that start and close the process both end, and a third one talks to it in between.
    `aclose` kills the program and everything that it started.
    """
    process = await in_another_task(
        lambda: start_process(tree("start-process-01"), sandbox=sandbox)
    )
    assert await process.stdout.receive() == b"up\n"
    assert processes_with("start-process-01")
    await in_another_task(process.aclose)
    assert not processes_with("start-process-01")
    assert process.completed.cleanup is Cleanup.CONFIRMED


async def test_a_conversation_and_an_end_by_itself(sandbox):
    """Streams and status work as with a block."""
    process = await start_process(["cat"], sandbox=sandbox)
    await process.stdin.send(b"hello\n")
    assert await process.stdout.receive() == b"hello\n"
    await process.stdin.aclose()
    assert await process.wait() == 0
    await process.aclose()
    assert process.completed.ok


async def test_closed_twice_and_by_many(sandbox):
    """Several tasks close the process at once; each returns only when the program is gone."""
    process = await start_process(["sleep", "999"], sandbox=sandbox)

    async def close():
        await process.aclose()
        assert process.completed is not None

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(close)
    await close()


async def test_within_a_block_it_is_closed_early():
    """`aclose` also works inside a block of `open_process`; leaving the block then does nothing."""
    async with anyspawn.open_process(tree("start-process-03")) as process:
        await process.aclose()
        assert process.completed.cleanup is Cleanup.CONFIRMED
        assert not processes_with("start-process-03")


async def test_what_does_not_start_is_an_error(sandbox, tmp_path):
    """A missing program, a missing folder and a bad argument raise the same errors as
    `open_process`.
    """
    with pytest.raises(NotStartedError):
        await start_process(["no-such-program"], sandbox=sandbox)
    with pytest.raises(NotStartedError):
        await start_process(["true"], cwd=tmp_path / "none", sandbox=sandbox)
    with pytest.raises(TypeError, match="stdin"):
        await start_process(Command(["cat"], stdin=b"x"), sandbox=sandbox)
    with pytest.raises(ConfigError):
        await start_process(["true"], sandbox="no-such-mode")


async def test_it_holds_its_place_until_it_is_closed():
    """A second process waits for a place until its own timeout, and gets the place after the first
    is closed.
    """
    sandbox = Direct(max_concurrent=1)
    first = await start_process(["cat"], sandbox=sandbox)
    with pytest.raises(SpawnTimeoutError):
        await start_process(["cat"], sandbox=sandbox, timeout=0.1)
    await first.aclose()
    await (await start_process(["cat"], sandbox=sandbox)).aclose()


async def test_grace_counts_when_it_is_closed():
    """`aclose` sends SIGTERM first, and the program has its grace to answer it."""
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    process = await start_process(["sh", "-c", script], grace=30)
    assert await process.stdout.receive() == b"up\n"
    await process.aclose()
    assert process.returncode == 3
    assert b"bye" in process.completed.stdout


async def test_cancelled_while_it_starts(sandbox):
    """Whenever the start is cancelled, the program is gone before the cancellation continues."""
    for delay in (0, 0.001, 0.005, 0.02):
        process = None
        with anyio.move_on_after(delay):
            process = await start_process(tree("start-process-04"), sandbox=sandbox)
        if process is None:
            assert not processes_with("start-process-04")
        else:
            await process.aclose()
    assert not processes_with("start-process-04")


async def test_cancelled_while_it_is_closed(sandbox):
    """`aclose` finishes its work, then the cancellation continues."""
    process = await start_process(tree("start-process-05"), sandbox=sandbox)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await process.aclose()
        await anyio.lowlevel.checkpoint()
        pytest.fail("the cancellation was swallowed")
    assert process.completed is not None
    assert not processes_with("start-process-05")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation(sandbox):
    """asyncio cancels the closing task twice; `aclose` still finishes first."""
    process = await start_process(tree("start-process-06"), sandbox=sandbox)
    task = asyncio.create_task(process.aclose())
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not processes_with("start-process-06")


FORGETFUL = """
import sys
import anyio, anyspawn
async def main():
    sandbox = sys.argv[2]
    process = await anyspawn.start_process(["sleep", "999"], env={"TREE": "start-process-07"}, sandbox=sandbox)
    box = await anyspawn.start_box(sandbox)
    closed = await anyspawn.start_process(["sleep", "999"], sandbox=sandbox)
    await closed.aclose()
    print("up")
anyio.run(main, backend=sys.argv[1])
print("over")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("mode", MODES)
def test_what_nobody_closes_ends_with_the_event_loop(backend, mode):
    """A process that nobody closes is killed when the event loop ends. A ResourceWarning names it
    if such warnings are shown; if they are errors, the log has it. A process that was closed is not
    named.
    """
    for shown in ((), ("-Wdefault::ResourceWarning",), ("-Werror::ResourceWarning",)):
        host = subprocess.run(
            [sys.executable, *shown, "-c", FORGETFUL, backend, mode],
            capture_output=True,
            timeout=60,
            text=True,
        )
        assert (host.returncode, host.stdout) == (0, "up\nover\n"), host.stderr
        for name in ("sleep", "box"):
            said = f"{name!r} was never closed, and ended with its event loop"
            assert host.stderr.count(said) == bool(shown), host.stderr
        assert ("ResourceWarning: " in host.stderr) == (shown == ("-Wdefault::ResourceWarning",))
    assert not eventually(lambda: processes_with("start-process-07"))
