"""Corner cases in which a fault of the host meets a call. Each of them has failed once."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import time

import anyio
import pytest

import anyspawn
from anyspawn import Bubblewrap, Direct, NotStartedError, spawn
from machine import bubblewrap_works

pytestmark = pytest.mark.anyio
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

SUBREAPER = """
import ctypes, os, sys, anyio
from anyspawn import Bubblewrap, spawn

async def main():
    for _ in range(5):
        await spawn(["sh", "-c", "sleep 100 & exit 0"], wait_delay=0.05)
        await spawn(["sh", "-c", "sleep 100 & wait"], timeout=0.1)
        await spawn(["sh", "-c", "sleep 0.01 >&- 2>&- & exit 0"], wait_delay=0.05)
        if sys.argv[2] == "bwrap":
            assert (await spawn(["true"], sandbox=Bubblewrap())).error is None
            await spawn(["sh", "-c", "sleep 100 & wait"], timeout=0.3, sandbox=Bubblewrap())

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans are given to this process
anyio.run(main, backend=sys.argv[1])
children = [open(f"/proc/self/task/{task}/children").read() for task in os.listdir("/proc/self/task")]
print("".join(children).split())
"""


@BACKENDS
def test_a_host_that_orphans_are_given_to(backend):
    """A host that is PID 1 of a container, or a subreaper, inherits orphans. No zombie of a program
    or of bwrap remains.
    """
    which = "bwrap" if bubblewrap_works() else ""
    host = subprocess.run(
        [sys.executable, "-c", SUBREAPER, backend, which],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert host.stdout == "[]\n"


INTERRUPTED = """
import os, signal, subprocess, sys, anyio, anyspawn
real, armed, pids = subprocess._fork_exec, False, []

def fork_exec(*args):
    global armed
    pid = real(*args)
    if armed:
        armed = False
        pids.append(pid)
        os.kill(os.getpid(), signal.SIGINT)
    return pid

subprocess._fork_exec = fork_exec

async def main(live):
    global armed
    armed = True
    if live:
        async with anyspawn.open_process(["sleep", "100"]):
            await anyio.sleep(100)
    else:
        await anyspawn.spawn(["sleep", "100"], timeout=None)

for live in (False, True):
    try:
        anyio.run(main, live, backend=sys.argv[1])
    except KeyboardInterrupt:
        print(os.path.exists(f"/proc/{pids.pop()}"))
"""


@pytest.mark.skipif(not hasattr(subprocess, "_fork_exec"), reason="this Python forks elsewhere")
@BACKENDS
def test_an_interrupt_as_the_fork_returns(backend):
    """If Ctrl-C arrives after the fork but before anyspawn has recorded the child, the child is
    killed all the same.
    """
    host = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert host.stdout == "False\nFalse\n"


@pytest.mark.parametrize("kind", [Direct, Bubblewrap])
async def test_a_working_directory_that_was_deleted(kind, tmp_path, monkeypatch):
    """If the host's own working directory was deleted, a call works with a cwd and without one."""
    if kind is Bubblewrap and not bubblewrap_works():
        pytest.skip("bwrap does not work here")
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.rmtree(folder)
    assert (await spawn(["echo", "x"], sandbox=kind(), check=True)).text == "x\n"
    assert (await spawn(["pwd"], sandbox=kind(), cwd="/usr", check=True)).text == "/usr\n"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_fork_of_the_host_holds_no_stdin():
    """If multiprocessing forks a worker while a program runs, the worker does not keep the
    program's stdin open.
    """
    context, workers = multiprocessing.get_context("fork"), []

    def fork(*_):
        if not workers:
            workers.append(context.Process(target=time.sleep, args=(100,)))
            workers[0].start()

    try:
        done = await spawn(["cat"], stdin=bytes(4_000_000), on_output=fork, timeout=60)
        assert (done.error, len(done.stdout)) == (None, 4_000_000)
        async with anyspawn.open_process(["cat"]) as process:
            other = context.Process(target=time.sleep, args=(100,))
            workers.append(other)
            other.start()
            await process.stdin.aclose()
            with anyio.fail_after(60):
                assert await process.wait() == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


FORKS = """
import atexit, os, sys, anyio, anyspawn
async def main():
    try:
        await parent()
    except SystemExit:
        if sys.argv[1] == "trio":  # whose threads may have held its locks as the copy was made
            atexit._run_exitfuncs()
            os._exit(3)
        raise
async def parent():
    async with anyspawn.open_process(["cat"]) as process:
        if os.fork() == 0:
            raise SystemExit(3)  # which leaves the block, in the copy
        os.wait()
        with open(f"/proc/{process.pid}/stat") as stat:
            print(stat.read().rpartition(")")[2].split()[0], flush=True)
        os._exit(0)  # the copy has taken what the event loop waits for away from it
anyio.run(main, backend=sys.argv[1])
"""


@BACKENDS
def test_a_fork_that_unwinds_ends_nothing(backend):
    """A forked copy of the host that leaves its blocks does not kill the parent's program."""
    host = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert host.stdout == "S\n"


async def test_the_variable_of_the_working_directory():
    """PWD is the directory in which the program starts, unless the command sets PWD itself."""
    assert (await spawn(["printenv", "PWD"], cwd="/usr/bin", check=True)).text == "/usr/bin\n"
    done = await spawn(["printenv", "PWD"], cwd="/usr/bin", env={"PWD": "/x"}, check=True)
    assert done.text == "/x\n"


async def test_reasons_are_true(tmp_path):
    """The error names the actual cause: a first line that ends in CR LF, or a program found in a
    relative entry of PATH that cannot be executed.
    """
    (tmp_path / "bin").mkdir()
    for name, text, mode in (
        ("crlf", "#!/bin/sh\r\necho x\r\n", 0o755),
        ("bin/noexec", "#!/bin/sh\n", 0o644),
        ("bin/badint", "#!/no/such\n", 0o755),
    ):
        (tmp_path / name).write_bytes(text.encode())
        (tmp_path / name).chmod(mode)
    env = {"PATH": "bin:/usr/bin"}
    for argv, words, kind in (
        ([str(tmp_path / "crlf")], "ends in CR LF", "not_executable"),
        (["noexec"], "is not executable", "not_executable"),
        (["badint"], "its interpreter '/no/such' does not", "not_executable"),
        (["nowhere"], "was not found on PATH", "not_found"),
    ):
        error = (await spawn(argv, cwd=tmp_path, env=env)).error
        assert isinstance(error, NotStartedError)
        assert words in error.reason
        assert error.kind == kind
    error = (await spawn(["true"], env={"A": "x" * 131072})).error
    assert isinstance(error, NotStartedError)
    assert error.kind == "too_long"
