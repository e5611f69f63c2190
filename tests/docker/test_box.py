"""Boxes in containers: of their own, and in one that runs already."""

from __future__ import annotations

import anyio
import pytest

import anyspawn
import boxes
from anyspawn import DockerExec, DockerRun, NotStartedError, TransportError
from engines import docker, processes_in
from machine import eventually

pytestmark = pytest.mark.anyio

RUN = DockerRun("busybox", network="none", default_timeout=60)


async def test_another_user():
    """Runs a call."""
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        assert (await box.spawn(["id", "-u"], user="65534", check=True)).text == "65534\n"


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
        docker("rm", "-f", box._place.name)
        for _ in range(2):
            with pytest.raises(TransportError):
                await session.run("1")


async def test_a_stream_to_a_port():
    """Of a container without a network, of which no port is published."""
    run = DockerRun("python:3-slim", network="none", default_timeout=60)
    async with anyspawn.open_box(run) as box:
        await boxes.connected(box, "python3", 2**20)
        async with (
            DockerExec(box._place.name, default_timeout=60) as sandbox,
            anyspawn.open_box(sandbox) as same,
        ):
            before = processes_in(box._place.name)
            async with same.open_process(["python3", "-c", boxes.SERVER]) as server:
                port = int(await server.stdout.receive())
                stream = await same.connect(port)
                await stream.send(b"E")
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        assert not eventually(lambda: set(processes_in(box._place.name)) - set(before))


async def test_the_container_is_removed():
    """All that comes after is told so, and nothing makes another one."""
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        await box.write_file("x", b"")
        docker("rm", "-f", box._place.name)
        with pytest.raises(TransportError):
            await box.read_file("x")
        assert isinstance((await box.spawn(["true"])).error, TransportError)
