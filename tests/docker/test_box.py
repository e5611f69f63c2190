"""Boxes in containers: new ones, and existing ones."""

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
    """A call in a box can run as another user."""
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        assert (await box.spawn(["id", "-u"], user="65534", check=True)).text == "65534\n"


async def test_python(python):
    """A Python session works in a new container and in an existing one. If the image has no Python,
    the error says so.
    """
    own = DockerRun("python:3-slim", network="none", default_timeout=60)
    for sandbox in (own, DockerExec(python, default_timeout=60)):
        async with sandbox, anyspawn.open_box(sandbox) as box:
            await boxes.python(box)
    async with anyspawn.open_box(RUN) as box:
        with pytest.raises(NotStartedError, match="there is no Python in the box"):
            async with box.python():
                pass


async def test_a_container_with_python_is_removed():
    """After the container was removed, a run raises a TransportError, and so does the next one."""
    sandbox = DockerRun("python:3-slim", network="none", default_timeout=60)
    async with anyspawn.open_box(sandbox) as box, box.python() as session:
        docker("rm", "-f", box._place.name)
        for _ in range(2):
            with pytest.raises(TransportError):
                await session.run("1")


async def test_a_stream_to_a_port():
    """connect() reaches a port in a container that has no network and publishes no port."""
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
    """After the container was removed, every use of the box is a TransportError, and no new
    container is made.
    """
    async with anyspawn.open_box(RUN, workdir="/work") as box:
        await box.write_file("x", b"")
        docker("rm", "-f", box._place.name)
        with pytest.raises(TransportError):
            await box.read_file("x")
        assert isinstance((await box.spawn(["true"])).error, TransportError)
