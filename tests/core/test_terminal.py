"""A live program with a terminal, on the host and in namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import pytest

import anyspawn
import terminals
from anyspawn import Bubblewrap, Cleanup, Direct, NotStartedError
from machine import MARK, bubblewrap_works, eventually, processes_with
from terminals import until

pytestmark = pytest.mark.anyio

SPACES = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
MODES = {
    "direct": Direct(default_timeout=60),
    "bubblewrap": Bubblewrap(share_env=[MARK], default_timeout=60),
}


@pytest.fixture(params=["direct", pytest.param("bubblewrap", marks=SPACES)])
def sandbox(request):
    return MODES[request.param]


async def test_a_terminal(sandbox):
    await terminals.drive(sandbox)


async def test_the_end_of_stdin_and_many_lines(sandbox):
    """Closing stdin types the end-of-file character. Fast input is not lost, even with resizes in
    between.
    """
    script = "stty -echo; echo up; wc -l; stty size"
    async with anyspawn.open_process(["sh", "-c", script], sandbox=sandbox, tty=True) as process:
        await until(process, b"up\r\n")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.stdin.send, b"a line of text\n" * 3_000)
            tasks.start_soon(process.resize, 10, 80)
        await process.stdin.aclose()
        said = await until(process, b" 80\r\n")
        assert said.split() == [b"3000", b"10", b"80"]
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdin.send(b"x")


async def test_ctrl_c_while_nobody_reads():
    """Ctrl-C reaches a program that waits for its output to be read."""
    script = "trap : INT; yes; echo over"
    async with anyspawn.open_process(["sh", "-c", script], tty=True) as process:
        await until(process, b"y\r\n")
        await process.stdin.send(b"\x03")
        await until(process, b"over\r\n")


async def test_what_is_killed(sandbox):
    """Leaving the block, or cancelling it, also kills processes that left the
    terminal's session.
    """
    script = "echo up; setsid sleep 987 & sleep 987"
    with anyio.CancelScope() as scope:
        async with anyspawn.open_process(
            ["sh", "-c", script], sandbox=sandbox, tty=True
        ) as process:
            await until(process, b"up\r\n")
            scope.cancel()
            await anyio.sleep_forever()
    assert process.completed.cleanup is Cleanup.CONFIRMED
    process = await anyspawn.start_process(["cat"], sandbox=sandbox, tty=True)
    await process.aclose()
    assert process.completed.cleanup is Cleanup.CONFIRMED


async def test_signals(sandbox):
    """Signals reach the program, and its exit status is reported as usual."""
    async with anyspawn.open_process(["cat"], sandbox=sandbox, tty=True) as process:
        await process.send_signal(signal.SIGTERM)
        assert await process.wait() in (-signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("argv", "kind", "words"),
    [
        (["no-such-program"], "not_found", "'no-such-program' was not found"),
        (["/etc/passwd"], "not_executable", "'/etc/passwd' was not executed"),
    ],
)
async def test_what_cannot_be_started(sandbox, argv, kind, words):
    with pytest.raises(NotStartedError, match=words) as caught:
        async with anyspawn.open_process(argv, sandbox=sandbox, tty=True):
            raise AssertionError
    assert caught.value.kind == kind


@SPACES
async def test_there_is_no_python():
    with pytest.raises(NotStartedError, match="tty=True needs python3 in the sandbox"):
        async with anyspawn.open_process(
            ["cat"], sandbox=Bubblewrap(), env={"PATH": "/nowhere"}, tty=True
        ):
            raise AssertionError


async def test_sizes(sandbox):
    """An impossible size is refused, and so is any size for a process without a terminal."""
    async with anyspawn.open_process(["cat"], sandbox=sandbox, tty=True) as process:
        with pytest.raises(ValueError, match="columns"):
            await process.resize(1, 65536)
    async with anyspawn.open_process(["cat"], sandbox=sandbox) as process:
        with pytest.raises(RuntimeError, match="tty=True"):
            await process.resize(1, 1)


HOST = """
import sys, anyio, anyspawn
async def main():
    sandbox = anyspawn.Direct() if sys.argv[2] == "direct" else anyspawn.Bubblewrap(share_env=["ANYSPAWN_TEST"])
    async with anyspawn.open_process(["sh", "-c", "echo; cat"], sandbox=sandbox, tty=True) as process:
        await process.stdout.receive()
        print("ready", flush=True)
        await process.wait()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("mode", ["direct", pytest.param("bubblewrap", marks=SPACES)])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_host_is_killed(backend, mode):
    """When the host is killed, the terminal hangs up, which ends the program."""
    argv = [sys.executable, "-c", HOST, backend, mode]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "ready\n"
        host.kill()
    assert not eventually(lambda: processes_with(os.environ[MARK]), 60)
