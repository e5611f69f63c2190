"""Boxes in pods that another process attaches to."""

from __future__ import annotations

import json

import pytest

import anyspawn
from anyspawn import KubectlExec, KubectlRun, TransportError

pytestmark = pytest.mark.anyio


async def test_a_pod_of_its_own(space):
    """The id alone is enough to attach. When the opener closes the box, an attached process gets an
    error that says so.
    """
    sandbox = KubectlRun("busybox", namespace=space.name, default_timeout=60)
    box = await anyspawn.start_box(sandbox, workdir="/tmp/work")
    try:
        async with anyspawn.attach_box(box.id) as other:
            await other.write_file("x", b"1")
            assert (other.id, await box.read_file("x")) == (box.id, b"1")
        pod = json.loads(space("get", "pod", box._place.name, "-o", "json"))
        assert "activeDeadlineSeconds" not in pod["spec"]  # the box lives as long as its block
        async with anyspawn.attach_box(box.id, sandbox) as other:
            await box.aclose()
            with pytest.raises(TransportError, match="the box has ended: its pod"):
                await other.read_file("x")
        with pytest.raises(TransportError, match="its opener closed it or was killed"):
            async with anyspawn.attach_box(box.id):
                raise AssertionError
    finally:
        await box.aclose()


async def test_it_is_ended_where_that_is_asked_for(space):
    sandbox = KubectlRun("busybox", namespace=space.name, default_timeout=60)
    async with anyspawn.open_box(sandbox, workdir="/tmp") as box:
        async with anyspawn.attach_box(box.id, ends=True) as other:
            assert await other.list_dir() == []
        with pytest.raises(TransportError, match="the box has ended"):
            await box.list_dir()


async def test_a_pod_that_is_there(space, busybox):
    async with (
        KubectlExec(busybox, namespace=space.name, default_timeout=60) as sandbox,
        anyspawn.open_box(sandbox, workdir="/tmp/attached") as box,
    ):
        await box.write_file("x", b"1")
        async with anyspawn.attach_box(box.id) as other:
            assert await other.read_file("x") == b"1"
        await box.spawn(["rm", "-rf", "/tmp/attached"], cwd="/", check=True)
