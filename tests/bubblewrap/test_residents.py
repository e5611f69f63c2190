"""Sandboxes that are kept: the walls stand as they do around one command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from anyspawn import (
    Bubblewrap,
    Cleanup,
    ConfigError,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn._model import Command, Completed
from anyspawn._spawn.group import ended
from cases import CHAINS, NASTY, TREES, be_patient, cancelled_after, no_chain_meets_the_next_call
from machine import MARK, children, eventually, open_fds, processes_with

pytestmark = pytest.mark.anyio


def bwraps():
    """Return our children that are bwrap."""
    return [pid for pid in children() if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"]


async def test_one_sandbox_serves_many_calls():
    """Each is a process of its own; what one writes to /tmp the next one finds; all of it goes with
    the sandbox.
    """
    async with Bubblewrap(resident=2) as sandbox:
        assert not bwraps()
        for number in range(4):
            done = await spawn(
                ["sh", "-c", "cat; exit $A"], sandbox=sandbox, stdin=b"in\0", env={"A": str(number)}
            )
            assert (done.stdout, done.returncode, done.cleanup) == (
                b"in\0",
                number,
                Cleanup.NOT_NEEDED,
            )
        assert len(bwraps()) == 1
        await spawn(["touch", "/tmp/x"], sandbox=sandbox, check=True)
        assert b"x" in (await spawn(["ls", "/tmp"], sandbox=sandbox, check=True)).stdout.split()
    assert not children()


async def test_the_walls_stand(tmp_path, monkeypatch):
    """No variable, file, process or network of the host; variables with their exact values."""
    monkeypatch.setenv("HOST_SECRET", "s3cret")
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 2)"
        async with Bubblewrap(resident=1) as sandbox:
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
async def test_a_call_that_is_ended_does_not_cost_its_sandbox(tree, monkeypatch):
    """Its own tree ends, and the next call finds the same sandbox with nothing in it."""
    be_patient(monkeypatch)
    async with Bubblewrap(resident=1) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        before = bwraps()
        done = await spawn(["sh", "-c", TREES[tree]], sandbox=sandbox, timeout=0.3)
        assert isinstance(done.error, SpawnTimeoutError)
        assert done.cleanup is Cleanup.CONFIRMED
        with anyio.move_on_after(0.2):
            await spawn(["sh", "-c", TREES[tree]], sandbox=sandbox)
        script = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c ^sleep"
        assert (await spawn(["sh", "-c", script], sandbox=sandbox)).stdout == b"0\n"
        assert bwraps() == before


@pytest.mark.parametrize("chain", CHAINS)
async def test_a_chain_of_processes_does_not_meet_the_next_call(chain, monkeypatch):
    """Of which each starts the next one and is gone before it is looked at."""
    be_patient(monkeypatch)
    async with Bubblewrap(resident=1) as sandbox:
        await no_chain_meets_the_next_call(sandbox, chain)


async def test_cancelled_at_each_of_its_first_steps():
    """Before it is told of the command or after it: the sandbox stays, and what it holds."""
    async with Bubblewrap(resident=1, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        before = len(open_fds())
        for steps in range(24):
            await cancelled_after(steps, lambda: spawn(["sh", "-c", "sleep 999"], sandbox=sandbox))
            await spawn(["true"], sandbox=sandbox, check=True)
            assert (len(bwraps()), len(open_fds())) == (1, before), steps


async def test_a_sandbox_that_dies():
    """Between calls: nobody notices. During one: the transport broke."""
    async with Bubblewrap(resident=1) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        (bwrap,) = bwraps()
        os.kill(bwrap, signal.SIGKILL)
        assert not eventually(lambda: not ended(bwrap))
        await spawn(["true"], sandbox=sandbox, check=True)

        def kill(stream, chunk):
            os.kill(bwraps()[0], signal.SIGKILL)

        done = await spawn(["sh", "-c", "echo ready; sleep 999"], sandbox=sandbox, on_output=kill)
        assert isinstance(done.error, TransportError), done
        assert (done.error.started, done.stdout) == (True, b"ready\n")
        assert (await spawn(["echo", "on"], sandbox=sandbox, check=True)).stdout == b"on\n"


PARENT = """
import anyio, sys
from anyspawn import Bubblewrap, spawn

async def main():
    sandbox = Bubblewrap(resident=2)
    await spawn(["true"], sandbox=sandbox, check=True)
    await spawn(["sh", "-c", "echo ready; setsid sleep 999 & sleep 999"], sandbox=sandbox, timeout=1000,
                on_output=lambda *_: print("ready", flush=True))

anyio.run(main, backend=sys.argv[1])
"""


async def test_the_caller_is_killed(anyio_backend):
    """Nothing is left, by itself."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, anyio_backend[0]], stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout.readline() == b"ready\n"
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert not eventually(lambda: processes_with(os.environ[MARK]))


async def test_many_at_once():
    """More calls than sandboxes: each has its own input and output."""
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
        assert len(bwraps()) == 3
    assert results == {number: (b"%d" % number, number) for number in range(24)}


async def test_the_callers_own_stdin():
    """Cannot be shared with the supervisor."""
    with pytest.raises(ConfigError, match="lifeline"):
        await spawn(["cat"], sandbox=Bubblewrap(resident=1), stdin=None)


@pytest.mark.parametrize(
    ("status", "words"), [(127, "the sandbox has the system's folders"), (2, "its variables")]
)
def test_why_a_program_was_not_started(status, words):
    """The sandbox lacks it, or the shell could not set its variables."""
    launch = Bubblewrap(resident=1).launch(Command(["true"]))
    done = Completed(argv=tuple(launch.argv), returncode=None, stdout=b"", stderr=b"")
    error = launch.explain(done, b"ready\nstart\nunstarted %d\nexit %d\nclean" % (status, status))
    assert isinstance(error, NotStartedError)
    assert words in str(error)
