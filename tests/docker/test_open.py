"""A live process in containers: new ones, and existing ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import pytest

import anyspawn
import terminals
from anyspawn import Cleanup, DockerExec, DockerRun, NotStartedError, TransportError
from cases import TREES, all_command_lines
from engines import docker, made_by_us, processes_in
from machine import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["exec", "run"])
def sandbox(request, busybox):
    return (
        DockerExec(busybox, default_timeout=60)
        if request.param == "exec"
        else DockerRun("busybox", default_timeout=60)
    )


@pytest.mark.parametrize("how", ["exec resident", "run resident"])
async def test_a_sandbox_that_keeps_supervisors(how, busybox):
    """A live process gets its own supervisor beside the residents."""
    box = {
        "exec resident": DockerExec(busybox, resident=1, default_timeout=60),
        "run resident": DockerRun("busybox", resident=1, default_timeout=60),
    }[how]
    async with box, anyspawn.open_process(["cat"], sandbox=box) as process:
        assert (await anyspawn.spawn(["echo", "x"], sandbox=box, check=True)).stdout == b"x\n"
        await process.stdin.send(b"in")
        assert await process.stdout.receive() == b"in"


async def read_exactly(stream, size):
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


async def test_a_conversation(sandbox):
    """Any bytes, in long and short pieces, come back. cat exits at the end of stdin, and not
    before.
    """
    async with anyspawn.open_process(["cat"], sandbox=sandbox) as process:
        for line in (b"one\n", bytes(range(256)), os.urandom(50_000), b"ends in \x1e"):
            await process.stdin.send(line)
            assert await read_exactly(process.stdout, len(line)) == line
        await process.stdin.aclose()
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive()
        assert await process.wait() == 0
    assert (
        process.completed.cleanup is not Cleanup.UNCONFIRMED
    )  # on a busy machine the client may close late


async def test_the_end_of_stdin_is_not_the_end(box):
    """A program can go on after its stdin was closed: that does not cut the
    supervisor's lifeline.
    """
    script = "cat; echo on; sleep 0.2; echo err >&2; exit 3"
    async with anyspawn.open_process(
        ["sh", "-c", script], sandbox=DockerExec(box), env={"A": "b"}
    ) as process:
        await process.stdin.send(b"in\n")
        await process.stdin.aclose()
        assert await read_exactly(process.stdout, 6) == b"in\non\n"
        assert await process.wait() == 3
        assert await process.stderr.receive() == b"err\n"


async def test_what_was_not_read_does_not_hide_the_end_of_the_block(box):
    """A program that never reads makes the writer wait; leaving the block still kills it."""
    async with anyspawn.open_process(["sleep", "100"], sandbox=DockerExec(box)) as process:
        with anyio.move_on_after(1) as scope:
            await process.stdin.send(bytes(500_000))
        assert scope.cancelled_caught
    assert process.completed.cleanup is Cleanup.CONFIRMED
    assert not eventually(lambda: processes_in(box))


async def test_a_writer_that_was_cancelled(box):
    """A cancelled writer leaves the stream usable, so closing it still ends the program's input."""
    async with anyspawn.open_process(
        ["sh", "-c", "read -r line; echo; exec cat"], sandbox=DockerExec(box)
    ) as process:
        with anyio.move_on_after(0.5):
            await process.stdin.send(b"x" * 500_000)
        await process.stdin.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdin.send(b"x")
        assert await process.wait() == 0


async def test_writing_to_a_program_that_ended(sandbox):
    async with anyspawn.open_process(["true"], sandbox=sandbox) as process:
        assert await process.wait() == 0
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdin.send(b"x")


async def test_a_status_and_a_signal(sandbox):
    """The status is the program's own, and a signal reaches it."""
    async with anyspawn.open_process(["sh", "-c", "exit 125"], sandbox=sandbox) as process:
        assert await process.wait() == 125
    script = "trap 'echo got; exit 4' USR1; echo; while :; do sleep 0.1; done"
    async with anyspawn.open_process(["sh", "-c", script], sandbox=sandbox) as process:
        await process.stdout.receive()
        await process.send_signal(signal.SIGUSR1)
        while b"got" not in await process.stdout.receive():
            pass
        assert await process.wait() == 4


async def test_what_cannot_be_started(sandbox):
    """A missing program, container, image or client each raises its own error before the block is
    entered.
    """
    with pytest.raises(NotStartedError, match="no-such-program"):
        async with anyspawn.open_process(["no-such-program"], sandbox=sandbox):
            raise AssertionError
    missing = (
        DockerExec("no-such-container")
        if isinstance(sandbox, DockerExec)
        else DockerRun("no-such-image")
    )
    with pytest.raises(TransportError, match=r"No such|Unable to find"):
        async with anyspawn.open_process(["true"], sandbox=missing):
            raise AssertionError
    with pytest.raises(TransportError, match="install the docker CLI"):
        async with anyspawn.open_process(
            ["true"], sandbox=DockerExec("box", docker_path="/no/docker")
        ):
            raise AssertionError


async def test_a_container_without_sh(containers):
    """Without sh there is no supervisor: the streams work, but a signal is refused and the clean-up
    is unconfirmed.
    """
    name = containers("distroless", "-i", cmd=("/app/cat",))
    async with anyspawn.open_process(
        ["/app/cat"], sandbox=DockerExec(name, default_timeout=60)
    ) as process:
        await process.stdin.send(b"in")
        assert await process.stdout.receive() == b"in"
        with pytest.raises(TransportError, match="without a supervisor"):
            await process.send_signal(signal.SIGINT)
    assert process.completed.cleanup is Cleanup.UNCONFIRMED
    with pytest.raises(TransportError, match="has no sh"):
        async with anyspawn.open_process(
            ["/app/cat"], sandbox=DockerExec(name, supervisor="required")
        ):
            raise AssertionError


@pytest.mark.parametrize("tree", TREES)
async def test_the_tree_ends_with_the_block(box, tree):
    """Leaving the block kills the whole tree inside the container."""
    async with anyspawn.open_process(
        ["sh", "-c", f"echo; {TREES[tree]}"], sandbox=DockerExec(box)
    ) as process:
        await process.stdout.receive()
    assert not eventually(lambda: processes_in(box))
    assert process.completed.cleanup is Cleanup.CONFIRMED


async def test_the_container_ends_with_the_block():
    """Leaving the block removes the container, and the clean-up is confirmed."""
    async with anyspawn.open_process(["sleep", "100"], sandbox=DockerRun("busybox")) as process:
        assert made_by_us()
    assert made_by_us() == []
    assert process.completed.cleanup is Cleanup.CONFIRMED


async def test_cancelled_at_every_moment(sandbox, busybox):
    """A cancellation strikes at many moments of the start and the block. No process and no
    container is left.
    """
    for step in range(12):
        with anyio.move_on_after(step / 25):
            async with anyspawn.open_process(["sleep", "100"], sandbox=sandbox) as process:
                await process.wait()
        assert not eventually(lambda: processes_in(busybox))
        assert not eventually(made_by_us)


async def test_the_container_goes_away(containers):
    """wait() raises a TransportError and the stream is broken; that is not the program's exit."""
    name = containers("busybox")
    async with anyspawn.open_process(["cat"], sandbox=DockerExec(name)) as process:
        docker("rm", "-f", name)
        with pytest.raises(TransportError):
            await process.wait()
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdout.receive()


async def test_the_client_is_killed(box):
    """If someone kills the client, wait() raises a TransportError, and the program inside is
    killed.
    """
    async with anyspawn.open_process(["cat"], sandbox=DockerExec(box)) as process:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TransportError, match="connection was lost"):
            await process.wait()
    assert not eventually(lambda: processes_in(box))


HOST = """
import sys, anyio, anyspawn
async def main():
    box = anyspawn.DockerRun("busybox") if sys.argv[2] == "run" else anyspawn.DockerExec(sys.argv[2])
    async with anyspawn.open_process(["sh", "-c", "setsid sleep 100 & echo; sleep 100"], sandbox=box) as process:
        await process.stdout.receive()
        await process.stdin.send(b"unread")
        print("ready", flush=True)
        await process.wait()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_the_caller_is_killed(backend, how, busybox):
    """When the caller is killed, the program and its container are gone."""
    where = "run" if how == "run" else busybox
    with subprocess.Popen(
        [sys.executable, "-c", HOST, backend, where], stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout.readline() == "ready\n"
        host.kill()
    assert not eventually(lambda: processes_in(busybox) or made_by_us(), 30)


async def test_no_secret_in_any_argv(sandbox):
    """Neither a variable's value nor the input appears in a command line, on the host or inside."""
    with all_command_lines() as seen:
        async with anyspawn.open_process(
            ["sh", "-c", "read -r x; echo $A"], sandbox=sandbox, env={"A": "s3cret-value"}
        ) as process:
            await process.stdin.send(b"s3cret-input\n")
            assert await process.stdout.receive() == b"s3cret-value\n"
            await process.wait()
    assert not [argv for argv in seen if any(b"s3cret" in arg for arg in argv)]


async def test_a_terminal(python):
    """A terminal works in a new container, in an existing one and in a box. Without Python, the
    error says so.
    """
    own = DockerRun("python:3-slim", network="none", default_timeout=60)
    running = DockerExec(python, default_timeout=60)
    for sandbox in (own, running):
        await terminals.drive(sandbox)
    async with (
        running,
        anyspawn.open_box(running) as box,
        box.open_process(["python3", "-q"], tty=True) as process,
    ):
        await terminals.until(process, b">>> ")
        await process.stdin.send(b"6 * 7\n")
        await terminals.until(process, b"42")
    with pytest.raises(NotStartedError, match="tty=True needs python3 in the sandbox"):
        async with anyspawn.open_process(["sh"], sandbox=DockerRun("busybox"), tty=True):
            raise AssertionError
