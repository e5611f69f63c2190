"""Many calls at once give back everything that they took."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import anyio
import anyio.to_thread
import pytest

from anyspawn import ExitError, SpawnTimeoutError, spawn
from anyspawn._spawn import call
from anyspawn._spawn.connection import Bounds
from machine import children, eventually, open_fds, rss

pytestmark = pytest.mark.anyio


def held():
    gc.collect()
    return {"fds": len(open_fds()), "children": len(children())}


async def many(count, argv, **options):
    answers = [None] * count

    async def one(index):
        answers[index] = await spawn(argv, stdin=b"%d" % index, timeout=100, **options)

    async with anyio.create_task_group() as tasks:
        for index in range(count):
            tasks.start_soon(one, index)
    return answers


@pytest.mark.heavy
async def test_five_hundred_at_once_and_five_hundred_cancelled(monkeypatch):
    """500 calls have the right answers, the next 500 are cancelled; afterwards descriptors,
    threads, children and memory are back where they were.
    """
    monkeypatch.setattr(call, "BOUNDS", Bounds(cleanup=60.0))  # all 500 look at every process
    await many(500, ["cat"])
    before, memory, threads = held(), rss(), threading.active_count()
    answers = await many(500, ["cat"])
    assert [answer.stdout for answer in answers] == [b"%d" % index for index in range(500)]
    del answers
    with anyio.move_on_after(0.2):
        await many(500, ["sh", "-c", "sleep 100 & wait"])
    assert not eventually(lambda: held() != before)
    assert not eventually(lambda: threading.active_count() > threads + 2, 20)
    assert rss() - memory < 24 * 2**20


async def test_a_failure_keeps_no_output_alive():
    """The outcome and the error refer to each other, and the traceback refers to the call. Once
    they are dropped, nothing keeps them alive.
    """
    kept = []

    async def fail(**options):
        try:
            done = await spawn(["sh", "-c", "echo out; exit 1"], **options)
            kept.append(weakref.ref(done))
        except ExitError as exc:
            kept.append(weakref.ref(exc.completed))

    await fail()
    await fail(check=True)
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


async def test_no_worker_thread_is_needed():
    """While every worker thread is busy, programs still start, time out and can be cancelled."""
    release = threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as tasks:
        for _ in range(int(limiter.total_tokens)):
            tasks.start_soon(anyio.to_thread.run_sync, release.wait)
        await anyio.wait_all_tasks_blocked()
        began = time.monotonic()
        try:
            assert (await spawn(["true"])).error is None
            assert isinstance((await spawn(["sleep", "100"], timeout=0.2)).error, SpawnTimeoutError)
            with anyio.move_on_after(0.2) as scope:
                await spawn(["sleep", "100"], timeout=50)
            assert scope.cancelled_caught
            assert time.monotonic() - began < 20
        finally:
            release.set()


def test_an_event_loop_in_another_thread(anyio_backend):
    """A call works in a loop outside the main thread, where signal handlers cannot be set."""
    answers = []

    def host():
        backend, options = anyio_backend
        answers.append(
            anyio.run(
                lambda: spawn(["sh", "-c", "exit 3"]), backend=backend, backend_options=options
            )
        )
        answers.append(
            anyio.run(
                lambda: spawn(["sleep", "100"], timeout=0.2),
                backend=backend,
                backend_options=options,
            )
        )

    thread = threading.Thread(target=host)
    thread.start()
    thread.join(30)
    assert answers[0].returncode == 3
    assert isinstance(answers[1].error, SpawnTimeoutError)


CLEAN = """
import sys, anyio, anyspawn, asyncio, gc
async def main():
    if sys.argv[1] == "asyncio":  # that a machine is busy is no fault of the program's
        asyncio.get_running_loop().slow_callback_duration = 60
    await anyspawn.spawn(["cat"], stdin=bytes(10**6), check=True)
    await anyspawn.spawn(["/does/not/exist"])
    await anyspawn.spawn(["sh", "-c", "sleep 100 & sleep 100"], timeout=0.2)
    await anyspawn.spawn(["yes"])
    await anyspawn.spawn(["sh", "-c", "sleep 100 & exit 3"], wait_delay=0.1)
    with anyio.move_on_after(0.2):
        await anyspawn.spawn(["sleep", "100"])
anyio.run(main, backend=sys.argv[1], backend_options={"use_uvloop": True} if sys.argv[2] else {})
gc.collect()
"""


def test_development_mode_has_nothing_to_say(anyio_backend):
    """Under -X dev -W error, success, failure, timeout and cancellation print nothing."""
    backend, options = anyio_backend
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-c",
            CLEAN,
            backend,
            "uvloop" if options else "",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
