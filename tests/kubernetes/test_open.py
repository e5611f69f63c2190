"""A live process in pods: existing ones, chosen or named, and new ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import pytest

import anyspawn
from anyspawn import Cleanup, KubectlExec, KubectlRun, NotStartedError, TransportError
from machine import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["exec", "selector", "run"])
def sandbox(request, space, busybox):
    if request.param == "run":
        return KubectlRun("busybox", namespace=space.name, default_timeout=60)
    if request.param == "exec":
        return KubectlExec(busybox, namespace=space.name, default_timeout=60)
    space("label", "--overwrite", "pod", busybox, "open=yes")
    return KubectlExec(selector="open=yes", namespace=space.name, default_timeout=60)


async def test_a_conversation(sandbox):
    """Any bytes come back. cat exits at the end of stdin, and not before."""
    async with anyspawn.open_process(["cat"], sandbox=sandbox) as process:
        for line in (b"one\n", bytes(range(256)), os.urandom(40_000), b"ends in \x1e"):
            await process.stdin.send(line)
            data = b""
            while len(data) < len(line):
                data += await process.stdout.receive()
            assert data == line
        await process.stdin.aclose()
        assert await process.wait() == 0
    assert (
        process.completed.cleanup is not Cleanup.UNCONFIRMED
    )  # on a busy machine the client may close late


async def test_what_runs_when_the_block_is_left(sandbox):
    """Leaving the block kills everything in the pod, and the clean-up is confirmed."""
    async with anyspawn.open_process(
        ["sh", "-c", "setsid sleep 999 & echo; sleep 999"], sandbox=sandbox
    ) as process:
        await process.stdout.receive()
    assert process.completed.cleanup is Cleanup.CONFIRMED


async def test_what_cannot_be_started(sandbox, space):
    """A missing program or pod raises its own error before the block is entered."""
    with pytest.raises(NotStartedError, match="no-such-program"):
        async with anyspawn.open_process(["no-such-program"], sandbox=sandbox):
            raise AssertionError
    for missing in (
        KubectlExec("no-such-pod", namespace=space.name),
        KubectlExec(selector="no=such", namespace=space.name),
    ):
        with pytest.raises(TransportError, match="no pod"):
            async with anyspawn.open_process(["true"], sandbox=missing):
                raise AssertionError


async def test_the_connection_is_lost(busybox, space):
    """wait() raises a TransportError and the stream is broken."""
    async with anyspawn.open_process(
        ["cat"], sandbox=KubectlExec(busybox, namespace=space.name)
    ) as process:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TransportError):
            await process.wait()
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdout.receive()
    assert not eventually(lambda: [line for line in space.processes(busybox) if "cat" in line])


HOST = """
import sys, anyio, anyspawn
async def main():
    box = anyspawn.KubectlExec(sys.argv[3], namespace=sys.argv[2])
    async with anyspawn.open_process(["sleep", "998"], sandbox=box) as process:
        print("ready", flush=True)
        await process.wait()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_caller_is_killed(backend, busybox, space):
    """When the caller is killed, the program in the pod is gone too."""
    argv = [sys.executable, "-c", HOST, backend, space.name, busybox]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "ready\n"
        host.kill()
    assert not eventually(lambda: [line for line in space.processes(busybox) if "998" in line], 30)
