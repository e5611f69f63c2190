"""Boxes in containers that another process attaches to."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest

import anyspawn
from anyspawn import Cleanup, DockerExec, DockerRun, TransportError
from engines import made_by_us, processes_in
from machine import eventually, settled_below

pytestmark = pytest.mark.anyio

RUN = DockerRun("busybox", network="none", default_timeout=60)
LEAVE = ["sh", "-c", "setsid sleep 986 >/dev/null 2>&1 & echo"]
OTHER = """
import sys
from anyspawn import sync
with sync.attach_box(sys.argv[1]) as box:
    print(box.workdir, box.id == sys.argv[1], box.read_file("mine"), flush=True)
    box.write_file("theirs", b"2")
    done = box.spawn(["sh", "-c", "ps; setsid sleep 985 >/dev/null 2>&1 &"], leave="detached")
    print("sleep 986" in done.text, done.cleanup.name, flush=True)
    sys.stdin.read()
"""


def runs(container, word):
    return [line for line in processes_in(container) if word in line]


@pytest.mark.parametrize("end", ["its block", "SIGKILL"])
async def test_another_process(end):
    """The other process sees the same files and processes. When its block ends or it is killed, the
    programs that it left are killed; everything else stays.
    """
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        name = box._place.name
        await box.write_file("mine", b"1")
        assert (await box.spawn(LEAVE, leave="detached")).cleanup is Cleanup.LEFT
        argv = [sys.executable, "-c", OTHER, box.id]
        async with anyspawn.open_process(argv) as other:
            said = b""
            while said.count(b"\n") < 2:
                said += await other.stdout.receive()
            assert said == b"/work True b'1'\nTrue LEFT\n"
            assert runs(name, "985")
            if end == "its block":
                await other.stdin.aclose()
                assert await other.wait() == 0
        assert not eventually(lambda: runs(name, "985"), 60)
        assert runs(name, "986")
        assert await box.read_file("theirs") == b"2"
    assert made_by_us() == []


async def test_the_opener_closes_it():
    """When the opener closes the box, calls of an attached process end and later ones do not start.
    Each error says so.
    """
    box = await anyspawn.start_box(RUN, workdir="/work")
    try:
        ended = []

        async def call(other):
            run = other.spawn(["sh", "-c", "echo; sleep 987"], on_output=lambda *_: up.set())
            ended.append((await run).error)

        up = anyio.Event()
        async with anyspawn.attach_box(box.id, RUN) as other, anyio.create_task_group() as tasks:
            tasks.start_soon(call, other)
            await up.wait()
            await box.aclose()
            with pytest.raises(TransportError, match="the box has ended: its container") as late:
                await other.read_file("x")
            assert (late.value.started, late.value.kind) == (False, "target")
        assert isinstance(ended[0], TransportError)
        assert "the box ended while 'sh' ran" in str(ended[0])
        with pytest.raises(TransportError, match="its opener closed it or was killed"):
            async with anyspawn.attach_box(box.id):
                raise AssertionError
    finally:
        await box.aclose()


HOST = """
import anyio, anyspawn
async def main():
    async with anyspawn.open_box(anyspawn.DockerRun("busybox", default_timeout=60)) as box:
        print(box.id, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


async def test_the_opener_is_killed():
    """When the opener is killed, its guard ends the box, even if another process is attached."""
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True) as host:
        async with anyspawn.attach_box(host.stdout.readline().strip(), RUN) as box:
            settled_below(host.pid)
            host.kill()
            done = await box.spawn(["sleep", "987"], timeout=60)
            assert isinstance(done.error, TransportError)
            assert "its opener closed it or was killed" in str(done.error)


async def test_it_is_ended_where_that_is_asked_for():
    """With ends=True the attached process ends the box for its opener too."""
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        async with anyspawn.attach_box(box.id, ends=True) as other:
            await other.write_file("x", b"1")
            assert await box.read_file("x") == b"1"
        with pytest.raises(TransportError, match="the box has ended"):
            await box.read_file("x")


async def test_a_container_that_is_there(busybox):
    """For an existing container, the id also carries the user and the folder."""
    async with (
        DockerExec(busybox, user="65534", default_timeout=60) as sandbox,
        anyspawn.open_box(sandbox, workdir="/tmp/attached") as box,
    ):
        await box.write_file("x", b"1")
        for given in (None, sandbox):
            async with anyspawn.attach_box(box.id, given) as other:
                assert await other.read_file("x") == b"1"
                assert (await other.spawn(["id", "-u"], check=True)).text == "65534\n"
        await box.spawn(["rm", "-rf", "/tmp/attached"], cwd="/", check=True)
