"""Faults of the host: no free descriptors, no threads, no pidfds, SIGCHLD ignored, an exit status
taken by other code.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading

import anyio
import pytest

from anyspawn import (
    Cleanup,
    Direct,
    ExitError,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn._spawn import streams
from faults import FAULTS, FullTable
from machine import MARK, eventually, kill_all, processes_with

pytestmark = pytest.mark.anyio


async def test_no_descriptor_left_at_any_moment_of_the_start():
    """With 0 to 15 free descriptors a call either succeeds or has an error that names descriptors.
    An autouse fixture checks that nothing leaks.
    """
    outcomes = []
    for free in range(16):
        with FullTable(free):
            done = await spawn(["cat"], stdin=b"x" * 100_000, timeout=20)
        assert done.error is None or isinstance(done.error, (NotStartedError, TransportError)), (
            done.error
        )
        if isinstance(done.error, NotStartedError):
            assert "descriptor" in str(done.error)
        else:
            assert done.error or done.stdout == b"x" * 100_000
        outcomes.append(done.error)
    assert isinstance(outcomes[0], NotStartedError)
    assert outcomes[-1] is None


async def test_no_descriptor_left_while_the_program_runs():
    """The descriptor table fills up while the program runs. The call still times out and kills the
    program, but reports its clean-up as unconfirmed, since it cannot look.
    """
    tables = []

    def fill(stream, chunk):
        tables.append(FullTable(0).__enter__())

    try:
        done = await spawn(
            ["sh", "-c", "echo; setsid sleep 100 & sleep 100"], timeout=2, on_output=fill
        )
    finally:
        tables[0].__exit__()
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.UNCONFIRMED
    kill_all(processes_with(os.environ[MARK]))


@pytest.fixture
def no_watcher(monkeypatch):
    """asyncio can start a program, but cannot watch it."""
    if sys.version_info >= (3, 12):
        real = os.pidfd_open

        def refuse(pid, flags=0):
            if "unix_events" in sys._getframe(1).f_code.co_filename:
                raise OSError(errno.EMFILE, "Too many open files")
            return real(pid, flags)

        monkeypatch.setattr(os, "pidfd_open", refuse)
    else:
        real = threading.Thread.start

        def refuse(thread):
            if "waitpid" in thread.name:
                raise RuntimeError("can't start new thread")
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


async def test_a_watcher_that_cannot_register(no_watcher, anyio_backend):
    """If asyncio fails after the fork, the program is killed and reaped, and the error says that it
    was started.
    """
    by_asyncio = anyio_backend == ("asyncio", {})
    for argv in (["true"], ["sh", "-c", "sleep 100 & sleep 100"]):
        for sandbox in (Direct(), Direct(inherit_env=False)):
            done = await spawn(argv, sandbox=sandbox, timeout=0.3)
            if by_asyncio:
                assert isinstance(done.error, TransportError)
                assert (done.error.started, done.error.kind) == (True, "resources")
            else:
                assert done.error is None or isinstance(done.error, SpawnTimeoutError)


async def test_no_epoll_for_a_program(monkeypatch):
    """Everything that takes a descriptor is opened before the fork: without an epoll, nothing is
    started.
    """

    def no_room():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(streams, "_Poll", no_room)
    done = await spawn(["sh", "-c", "sleep 100 & sleep 100"], timeout=2)
    assert isinstance(done.error, NotStartedError)
    assert done.error.kind == "resources"


async def test_ignored_sigchld_is_refused():
    """While SIGCHLD is ignored, exit statuses are lost. Nothing is started, and the error says how
    to fix it.
    """
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        done = await spawn(["sh", "-c", "exit 7"])
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert isinstance(done.error, NotStartedError)
    assert "signal.signal(signal.SIGCHLD, signal.SIG_DFL)" in done.error.reason
    assert done.returncode is None


async def test_a_status_that_someone_else_took(anyio_backend):
    """If other code waits for any child, the exit status is lost. The call must not count that as
    success: it fails with a TransportError, or has the status 255 that asyncio substitutes.
    """
    pids = []

    def steal(stream, chunk):
        pids.append(int(chunk))
        os.kill(pids[0], signal.SIGKILL)
        try:
            os.waitpid(pids[0], 0)
        except ChildProcessError:  # on Python 3.11, asyncio's own thread was first
            pids.append(-1)

    done = await spawn(["sh", "-c", "echo $$; sleep 100"], timeout=5, on_output=steal)
    if anyio_backend == ("asyncio", {}):
        assert isinstance(done.error, ExitError)
        assert done.returncode == (255 if len(pids) == 1 else -signal.SIGKILL)
    else:
        assert isinstance(done.error, TransportError)
        assert "status is unknown" in str(done.error)
        assert done.returncode is None
    assert done.duration < 5


@pytest.fixture(params=["no pidfd", "no group signal"])
def old_system(request, monkeypatch, tmp_path):
    """A system without pidfds (macOS, seccomp), or one that cannot signal a group by pidfd (Linux
    before 6.9).
    """
    FAULTS[request.param](monkeypatch, tmp_path)


async def test_older_systems_keep_the_promises(old_system):
    """Exit, output, timeout, stragglers and cancellation work the same without the newer system
    calls.
    """
    assert (await spawn(["cat"], stdin=b"x", check=True)).stdout == b"x"
    assert isinstance(
        (await spawn(["sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 3"])).error, ExitError
    )
    done = await spawn(["sh", "-c", "echo x; sleep 100 & sleep 100"], timeout=2)
    assert isinstance(done.error, SpawnTimeoutError)
    assert (done.stdout, done.cleanup) == (b"x\n", Cleanup.CONFIRMED)
    done = await spawn(["sh", "-c", "sleep 100 & exit 0"], wait_delay=0.2)
    assert (done.returncode, done.output_incomplete) == (0, True)
    await spawn(["sh", "-c", "sleep 100 <&- >&- 2>&- & exit 0"], check=True)
    with anyio.move_on_after(0.2) as scope:
        await spawn(["sh", "-c", "sleep 100 & sleep 100"])
    assert scope.cancelled_caught
    assert not eventually(lambda: processes_with(os.environ[MARK]))
