"""Boxes in containers: of their own, and in one that runs already."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest

import anyspawn
import boxes
from anyspawn import DockerExec, DockerRun, NotStartedError, TransportError
from engines import docker, made_by_us, processes_in
from machine import eventually, settled_below

pytestmark = pytest.mark.anyio

RUN = DockerRun("busybox", network="none", default_timeout=60)


async def test_a_container_of_its_own(tmp_path):
    """Holds what a box promises, and is gone afterwards."""
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        assert made_by_us() == [docker("inspect", "--format={{.Id}}", box.id)[:12]]
        for check in (boxes.files, boxes.calls, boxes.leaving, boxes.beside_each_other):
            await check(box)
        assert (await box.spawn(["id", "-u"], user="65534", check=True)).text == "65534\n"
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        await boxes.errors(box)
        await boxes.trees(box, tmp_path)
        await boxes.saved(box, RUN, tmp_path, workdir="/work")
    assert made_by_us() == []


async def test_a_container_that_is_there(busybox):
    """Keeps the files, and no process."""
    before = processes_in(busybox)
    async with DockerExec(busybox, default_timeout=60) as sandbox:
        async with anyspawn.open_box(sandbox, workdir="/tmp/box") as box:
            await boxes.permissions(box)
            await boxes.calls(box)
            await boxes.leaving(box)
        async with anyspawn.open_box(sandbox, workdir="/tmp/box") as box:
            assert "here" in await box.list_dir()
            await box.spawn(["sh", "-c", "rm -rf /tmp/box"], cwd="/", check=True)
    assert not eventually(lambda: set(processes_in(busybox)) - set(before))


async def test_python(python):
    """Stays in a container of its own, and in one that runs already; none there is told."""
    own = DockerRun("python:3-slim", network="none", default_timeout=60)
    for sandbox in (own, DockerExec(python, default_timeout=60)):
        async with sandbox, anyspawn.open_box(sandbox) as box:
            await boxes.python(box)
    async with anyspawn.open_box(RUN) as box:
        with pytest.raises(NotStartedError, match="there is no Python in the box"):
            async with box.python():
                pass


async def test_a_container_with_python_is_removed():
    """A run is told so, and so is the next one."""
    sandbox = DockerRun("python:3-slim", network="none", default_timeout=60)
    async with anyspawn.open_box(sandbox) as box, box.python() as session:
        docker("rm", "-f", box.id)
        for _ in range(2):
            with pytest.raises(TransportError):
                await session.run("1")


async def test_a_stream_to_a_port():
    """Of a container without a network, of which no port is published."""
    run = DockerRun("python:3-slim", network="none", default_timeout=60)
    async with anyspawn.open_box(run) as box:
        await boxes.connected(box, "python3", 2**20)
        async with (
            DockerExec(box.id, default_timeout=60) as sandbox,
            anyspawn.open_box(sandbox) as same,
        ):
            before = processes_in(box.id)
            async with same.open_process(["python3", "-c", boxes.SERVER]) as server:
                port = int(await server.stdout.receive())
                stream = await same.connect(port)
                await stream.send(b"E")
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        assert not eventually(lambda: set(processes_in(box.id)) - set(before))


async def test_the_container_is_removed():
    """All that comes after is told so, and nothing makes another one."""
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        await box.write_file("x", b"")
        docker("rm", "-f", box.id)
        with pytest.raises(TransportError):
            await box.read_file("x")
        assert isinstance((await box.spawn(["true"])).error, TransportError)


LEAVING_HOST = """
import sys, anyio, anyspawn
async def main():
    async with anyspawn.open_box(anyspawn.DockerExec(sys.argv[1], default_timeout=60)) as box:
        done = await box.spawn(["sh", "-c", "setsid sleep 986 >/dev/null 2>&1 & echo"], leave="detached")
        print(done.cleanup.name, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def test_the_host_is_killed_after_a_call_left_something(busybox):
    """In a container that is there already: it is killed."""

    def left():
        return [line for line in processes_in(busybox) if "986" in line]

    argv = [sys.executable, "-c", LEAVING_HOST, busybox]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "LEFT\n"
        assert left()
        host.kill()
    assert not eventually(left, 60)


HOST = """
import sys, anyio, anyspawn
async def main():
    async with anyspawn.open_box(anyspawn.DockerRun("busybox", default_timeout=60)) as box:
        print(box.id, flush=True)
        await box.spawn(["sleep", "987"], timeout=None)
anyio.run(main)
"""


def test_the_host_is_killed():
    """A guard removes the container."""
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True) as host:
        name = host.stdout.readline().strip()
        settled_below(host.pid)
        host.kill()
    assert not eventually(lambda: name in docker("ps", "-a", "--format={{.Names}}"), 60)
