"""Sandboxes that are started ahead, each for one command, confine as much as the others."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import anyio
import attrs
import pytest

from anyspawn import (
    Bubblewrap,
    Cleanup,
    ConfigError,
    Limits,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn._model import Command, Completed
from anyspawn._spawn.child import ended
from anyspawn.supervisor import Report
from cases import NASTY, TREES, be_patient, cancelled_after, command_lines
from machine import children, eventually, open_fds

pytestmark = pytest.mark.anyio


def bwraps():
    """Return our children that are bwrap."""
    return [pid for pid in children() if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"]


async def waiting(number):
    """Wait until exactly this many sandboxes run: used ones are gone, and new ones wait."""
    with anyio.fail_after(20):
        while len(bwraps()) != number:
            await anyio.sleep(0.005)


def sleeping(seconds):
    """Return the host's processes that sleep for this many seconds."""
    return [pid for pid, argv in command_lines().items() if argv[:2] == [b"sleep", seconds]]


async def test_copies_of_a_sandbox():
    """A copy with other settings must not use a sandbox that was started for the original. Closing
    one of them closes those of all.
    """
    base = Bubblewrap(resident=1, default_timeout=60, limits=Limits(files=100))
    more = attrs.evolve(base, limits=Limits(files=200))
    for _ in range(2):
        for sandbox, files in ((base, "100"), (more, "200")):
            done = await spawn(["sh", "-c", "ulimit -n"], sandbox=sandbox, check=True)
            assert done.text.strip() == files
    await waiting(2)
    await base.aclose()
    await waiting(0)


IMPERSONATE = r"""
import os, re, resource, signal
program, supervisor = os.getpid(), os.getppid()
watcher = next(
    pid
    for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
    if pid not in (1, program, supervisor)
)
for pid in (watcher, supervisor):
    os.kill(pid, signal.SIGSTOP)
nonce = None
with open(f"/proc/{supervisor}/maps") as maps, open(f"/proc/{supervisor}/mem", "rb") as memory:
    for line in maps:
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if "rw" in line and end - start < 2**24:
            memory.seek(start)
            try:
                found = re.search(rb"run ([0-9a-f]{32}) ", memory.read(end - start))
            except OSError:
                continue
            nonce = found[1] if found else nonce
def frame(word):
    return b"\x1e" + nonce + b" " + word + b"\x1e"
if os.fork() == 0:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    os.execve("/bin/sleep", ["sleep", "778"], {})
os.write(1, b"forged" + frame(b"end"))
os.write(2, frame(b"exit 0") + frame(b"clean"))
signal.pause()
"""
"""Stops the supervisor and its watcher, reads the nonce of the call's frames from the supervisor's
memory, and reports that the call is over, while it runs on with a child.
"""


async def test_each_sandbox_serves_one_call():
    """No sandbox waits before the first call, then as many as were asked for. A call does not see
    files of an earlier one, and nothing is left after the block.
    """
    async with Bubblewrap(resident=2) as sandbox:
        assert not bwraps()
        for number in range(6):
            done = await spawn(
                ["sh", "-c", "cat; cat /tmp/x; echo x >/tmp/x; exit $A"],
                sandbox=sandbox,
                stdin=b"in\0",
                env={"A": str(number)},
            )
            assert (done.stdout, done.returncode, done.cleanup) == (
                b"in\0",
                number,
                Cleanup.NOT_NEEDED,
            )
            await waiting(2)
    assert not children()


async def test_the_walls_stand(tmp_path, monkeypatch):
    """A resident hides the host's variables, files, processes and network like any other sandbox,
    and variables arrive exactly.
    """
    monkeypatch.setenv("HOST_SECRET", "s3cret")
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 2)"
        async with Bubblewrap(resident=1, bind_program=True) as sandbox:
            await spawn(["true"], sandbox=sandbox, check=True)
            done = await spawn(["cat", "/proc/self/environ"], sandbox=sandbox, env=NASTY)
            found = dict(
                entry.split("=", 1)
                for entry in os.fsdecode(done.stdout).split("\0")
                if "=" in entry
            )
            assert {name: found.get(name) for name in NASTY} == NASTY
            assert "HOST_SECRET" not in found
            assert isinstance(
                (await spawn(["no-such-program"], sandbox=sandbox)).error, NotStartedError
            )
            assert (await spawn(["cat", str(secret)], sandbox=sandbox)).returncode == 1
            assert (await spawn([sys.executable, "-c", connect], sandbox=sandbox)).returncode == 1
            pids = (
                await spawn(["sh", "-c", "echo /proc/[0-9]*"], sandbox=sandbox, check=True)
            ).stdout.split()
            assert len(pids) < 12
        async with Bubblewrap(resident=1, writable=[tmp_path]) as sandbox:
            await spawn(
                ["sh", "-c", "echo new > made"], sandbox=sandbox, cwd=str(tmp_path), check=True
            )
    assert (tmp_path / "made").read_text() == "new\n"


@pytest.mark.parametrize("tree", TREES)
async def test_a_call_that_is_ended(tree, monkeypatch):
    """A timeout and a cancellation both kill the whole process tree."""
    be_patient(monkeypatch)
    own = str(10**6 + os.getpid())  # programs of other tests sleep at the same time
    script = TREES[tree].replace("999", own)
    async with Bubblewrap(resident=1) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        done = await spawn(["sh", "-c", script], sandbox=sandbox, timeout=0.3)
        assert isinstance(done.error, SpawnTimeoutError)
        assert done.cleanup is Cleanup.CONFIRMED
        assert not sleeping(own.encode())
        with anyio.move_on_after(0.2):
            await spawn(["sh", "-c", script], sandbox=sandbox)
        assert not sleeping(own.encode())


HIDING = {
    "another tag": "ulimit -x 7 2>/dev/null || ulimit -w 7",
    "the same tag": "true",
}


@pytest.mark.parametrize("how", HIDING)
async def test_what_hides_has_ended_with_its_call(how):
    """A process that changes or drops the tag by which the supervisor finds it is still gone after
    the call.
    """
    async with Bubblewrap(resident=1) as sandbox:
        hide = f"{HIDING[how]}; env -i setsid sleep 777 </dev/null >/dev/null 2>&1 & exit 0"
        for _ in range(3):
            done = await spawn(["sh", "-c", hide], sandbox=sandbox)
            assert (done.error, done.cleanup) == (None, Cleanup.CONFIRMED)
            assert not sleeping(b"777")


async def test_a_supervisor_that_is_stopped_and_impersonated():
    """The program stops its supervisor and reports in its place that the call is over. It must
    still be gone after the call, and later calls must not see it.
    """
    async with Bubblewrap(resident=1, bind_program=True, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        done = await spawn([sys.executable, "-c", IMPERSONATE], sandbox=sandbox)
        assert done.stdout.startswith(b"forged"), done
        assert not sleeping(b"778")
        for _ in range(3):
            done = await spawn(["sh", "-c", "echo no; exit 2"], sandbox=sandbox, timeout=20)
            assert (done.stdout, done.returncode) == (b"no\n", 2)


async def test_cancelled_at_each_of_its_first_steps():
    """A cancellation before or after the sandbox has received the command leaves no descriptor and
    no process.
    """
    async with Bubblewrap(resident=1, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        await waiting(1)
        before = len(open_fds())
        for steps in range(24):
            await cancelled_after(steps, lambda: spawn(["sh", "-c", "sleep 999"], sandbox=sandbox))
            await spawn(["true"], sandbox=sandbox, check=True)
            with anyio.fail_after(20):
                # used sandboxes close their descriptors a little later
                while len(bwraps()) != 1 or len(open_fds()) > before + 6:
                    await anyio.sleep(0.005)


async def test_a_sandbox_that_dies():
    """If a waiting sandbox dies, the next call gets another one. If it dies during a call, that is
    a TransportError.
    """
    async with Bubblewrap(resident=1) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        for bwrap in bwraps():
            os.kill(bwrap, signal.SIGKILL)
            assert not eventually(lambda bwrap=bwrap: not ended(bwrap))
        await spawn(["true"], sandbox=sandbox, check=True)

        def kill(stream, chunk):
            for bwrap in bwraps():
                os.kill(bwrap, signal.SIGKILL)

        done = await spawn(["sh", "-c", "echo ready; sleep 999"], sandbox=sandbox, on_output=kill)
        assert isinstance(done.error, TransportError), done
        assert (done.error.started, done.stdout) == (True, b"ready\n")
        assert (await spawn(["echo", "on"], sandbox=sandbox, check=True)).stdout == b"on\n"


async def test_many_at_once():
    """More calls than sandboxes: each waits and gets its own input and output."""
    results = {}

    async with Bubblewrap(resident=3, default_timeout=60) as sandbox:

        async def one(number):
            done = await spawn(
                ["sh", "-c", "cat; exit $A"],
                sandbox=sandbox,
                stdin=b"%d" % number,
                env={"A": str(number)},
            )
            results[number] = (done.stdout, done.returncode)

        async with anyio.create_task_group() as tasks:
            for number in range(24):
                tasks.start_soon(one, number)
    assert results == {number: (b"%d" % number, number) for number in range(24)}


async def test_the_callers_own_stdin():
    """A resident's stdin is its lifeline, so stdin=None is refused."""
    with pytest.raises(ConfigError, match="the supervisor reads that stream"):
        await spawn(["cat"], sandbox=Bubblewrap(resident=1), stdin=None)


@pytest.mark.parametrize(
    ("status", "words"), [(127, "the sandbox has the system's folders"), (2, "its variables")]
)
def test_why_a_program_was_not_started(status, words):
    """The reason is either that the sandbox lacks the program, or that the shell could not set its
    variables.
    """
    launch = Bubblewrap(resident=1).launch(Command(["true"]))
    report = Report(ready=True, begun=True, unstarted=status, exit_status=status, clean=True)
    error = launch.task.explain(Completed(argv=("true",)), report)
    assert isinstance(error, NotStartedError)
    assert words in str(error)
