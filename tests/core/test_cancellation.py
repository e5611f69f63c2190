"""A call can be cancelled at any moment and by any means: anyspawn kills the program first, then
the cancellation continues.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from anyspawn import Direct, NotStartedError, SpawnTimeoutError, spawn
from machine import MARK, alive, children, eventually, open_fds, processes_with

pytestmark = pytest.mark.anyio


async def test_cancelled_before_the_start_nothing_is_started(tmp_path):
    """A call in a scope that is already cancelled starts nothing."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await spawn(["touch", str(tmp_path / "started")])
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


async def test_cancelled_at_every_moment_of_a_call():
    """A call is cancelled at each tenth of a millisecond of its first 6 ms. When the cancellation
    arrives, every process that the call started is gone.
    """
    for step in range(60):
        with anyio.move_on_after(step / 10_000) as scope:
            await spawn(["sh", "-c", "sleep 100 & sleep 100"])
        assert scope.cancelled_caught
        assert processes_with(os.environ[MARK]) == []
        assert children() == []


async def test_a_hundred_cancelled_shells_leave_no_descriptor():
    """A hundred shells with children, started together and then cancelled, give back all their
    descriptors.
    """
    before = len(open_fds())
    with anyio.move_on_after(0.05):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(spawn, ["sh", "-c", "sleep 100 & wait"])
    assert not eventually(lambda: len(open_fds()) > before)


def run_asyncio(main, anyio_backend):
    if anyio_backend[0] == "trio":
        return
    if anyio_backend[1]:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    else:
        asyncio.run(main())


def test_native_wait_for_at_every_moment(anyio_backend):
    """asyncio.wait_for raises its TimeoutError only when the program is dead, wherever in the call
    the time runs out.
    """

    async def main():
        for step in range(40):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(spawn(["sh", "-c", "sleep 100 & sleep 100"]), step / 5_000)
            assert processes_with(os.environ[MARK]) == []

    run_asyncio(main, anyio_backend)


def test_native_cancel_again_and_again(anyio_backend):
    """Four cancel() in a row do not interrupt the clean-up: the program is dead before
    CancelledError is raised.
    """

    async def main():
        for delay in (0, 0.001, 0.005, 0.05):
            task = asyncio.create_task(
                spawn(["sh", "-c", "trap '' TERM; sleep 100 & sleep 100"], grace=0.2)
            )
            await asyncio.sleep(delay)
            for _ in range(4):
                task.cancel()
                await asyncio.sleep(0.001)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert processes_with(os.environ[MARK]) == []

    run_asyncio(main, anyio_backend)


def test_native_cancel_of_every_task(anyio_backend):
    """If every task of the loop is cancelled, the library's own included, no process survives
    either.
    """

    async def main():
        task = asyncio.create_task(
            spawn(["sh", "-c", "echo; sleep 100 & sleep 100"], on_output=lambda *_: seen.set())
        )
        seen = asyncio.Event()
        await seen.wait()
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes_with(os.environ[MARK]) == []

    run_asyncio(main, anyio_backend)


async def test_cancelled_during_grace():
    """The program gets its whole grace to exit by itself, even though the caller is already
    cancelled.
    """
    script = "trap 'exit 0' TERM; echo; while :; do sleep 0.01; done"
    began = time.monotonic()
    with anyio.move_on_after(0.3) as scope:
        await spawn(["sh", "-c", script], grace=20)
    assert scope.cancelled_caught
    assert time.monotonic() - began < 10


async def test_cancelled_during_wait_delay():
    """A cancellation cuts the wait for a descendant's stream short, and the descendant
    is killed.
    """
    began = time.monotonic()
    with anyio.move_on_after(0.3) as scope:
        await spawn(["sh", "-c", "sleep 100 & exit 0"], wait_delay=50)
    assert scope.cancelled_caught
    assert time.monotonic() - began < 10


async def test_cancelled_in_an_async_callback():
    ended = False

    async def hang(stream, chunk):
        nonlocal ended
        try:
            scope.cancel()
            await anyio.sleep_forever()
        finally:
            ended = True

    with anyio.CancelScope() as scope:
        await spawn(["sh", "-c", "echo; sleep 100"], on_output=hang)
    assert scope.cancelled_caught
    assert ended


async def test_cancelled_while_waiting_for_a_place():
    """A call that waits for max_concurrent can be cancelled or time out there, and the place is not
    lost.
    """
    sandbox = Direct(max_concurrent=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: spawn(["sleep", "100"], sandbox=sandbox))
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0.1) as scope:
            await spawn(["true"], sandbox=sandbox)
        assert scope.cancelled_caught
        late = await spawn(["true"], sandbox=sandbox, timeout=0.1)
        assert isinstance(late.error, SpawnTimeoutError)
        assert late.returncode is None
        tasks.cancel_scope.cancel()
    assert (await spawn(["true"], sandbox=sandbox)).error is None


async def test_a_sandbox_serves_no_more_than_its_limit_at_once(tmp_path):
    """With max_concurrent=2, a third program never runs beside two others."""
    script = f"mkdir {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.05; rmdir {tmp_path}/$$"
    counts = []
    sandbox = Direct(max_concurrent=2)

    async def one():
        counts.append(
            int((await spawn(["sh", "-c", script], sandbox=sandbox, timeout=60, check=True)).stdout)
        )

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(one)
    assert max(counts) <= 2
    assert len(counts) == 8


def test_a_sandbox_with_a_limit_serves_several_event_loops_in_turn():
    """The places are bound to the running event loop, so one sandbox serves an asyncio loop and
    then a trio loop.
    """
    sandbox = Direct(max_concurrent=1)
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(lambda: spawn(["true"], sandbox=sandbox), backend=backend).error is None


INTERRUPTED = """
import sys, anyio, anyspawn
def ready(stream, chunk): print(chunk.decode().strip(), flush=True)
async def main():
    await anyspawn.spawn(["sh", "-c", "echo $$; sleep 100 & sleep 100"], timeout=60, on_output=ready)
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_from_the_keyboard(backend):
    """Ctrl-C kills the program first; then the host ends with a KeyboardInterrupt, as without
    anyspawn.
    """
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as host:
        pid = int(host.stdout.readline())
        host.send_signal(signal.SIGINT)
        _, errors = host.communicate(timeout=30)
    assert host.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert not alive(pid)


LOOP_GOES_AWAY = """
import asyncio, sys, anyio, anyspawn
seen = []
async def work():
    await anyspawn.spawn(["sh", "-c", "echo; sleep 100 & sleep 100"], on_output=lambda *_: seen.append(1))
async def main():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        while not seen:
            await anyio.sleep(0.001)
        raise SystemExit(7)
async def native():
    task = asyncio.create_task(work())
    while not seen:
        await asyncio.sleep(0.001)
    raise SystemExit(7)
if sys.argv[1] == "native":
    asyncio.run(native())
else:
    anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("how", ["asyncio", "trio", "native"])
def test_the_loop_ends_with_a_program_alive(how):
    """A host that leaves its event loop by an exception leaves no program behind, and anyspawn
    prints nothing.
    """
    host = subprocess.run(
        [sys.executable, "-c", LOOP_GOES_AWAY, how], capture_output=True, text=True, timeout=30
    )
    assert host.returncode in (1, 7)  # a task group wraps the SystemExit
    assert not [
        line for line in host.stderr.splitlines() if "anyspawn" in line and "File" not in line
    ]
    assert "Warning" not in host.stderr
    assert "ignored" not in host.stderr
    assert processes_with(os.environ[MARK]) == []


LOOP_IS_CLOSED = """
import asyncio, anyspawn
loop = asyncio.new_event_loop()
seen = asyncio.Event()
task = loop.create_task(anyspawn.spawn(["sh", "-c", "echo; sleep 100 & sleep 100"], on_output=lambda *_: seen.set()))
loop.run_until_complete(seen.wait())
loop.close()
del task, loop
"""


def test_the_loop_is_closed_under_a_call():
    """If a loop is closed and its task dropped without a cancellation, the program is
    killed too.
    """
    host = subprocess.run(
        [sys.executable, "-c", LOOP_IS_CLOSED], capture_output=True, text=True, timeout=30
    )
    assert host.returncode == 0
    assert not eventually(lambda: processes_with(os.environ[MARK]))


def test_each_event_loop_has_places_of_its_own(tmp_path):
    """Two event loops in two threads hold the sandbox's one place at the same time: each program
    exits only when it sees the other one.
    """
    sandbox = Direct(max_concurrent=1, default_timeout=60)
    argv = ["sh", "-c", "touch $$; until [ $(ls | wc -l) = 2 ]; do sleep 0.01; done"]
    with ThreadPoolExecutor() as threads:
        calls = [
            threads.submit(anyio.run, lambda: spawn(argv, sandbox=sandbox, cwd=tmp_path))
            for _ in range(2)
        ]
    assert all(call.result().ok for call in calls)


async def test_errors_come_bare():
    """Neither a failure nor the caller's own time limit arrives in an exception group."""
    with pytest.raises(NotStartedError):
        await spawn(["/does/not/exist"], check=True)
    with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.2):
        await spawn(["sleep", "100"])
    assert not isinstance(caught.value, SpawnTimeoutError)


@pytest.mark.parametrize("turns", range(12))
def test_the_loop_ends_at_any_moment_of_the_opening(turns):
    """When its loop ends, asyncio cancels every task, including those that it starts a program
    with. No program survives that.
    """

    async def main():
        calls = [asyncio.ensure_future(spawn(["sleep", "100"])) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not any(call.done() for call in calls)

    asyncio.run(main())
