"""Boxes that need no engine: in a folder, and in namespaces."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

import anyspawn
import boxes
from anyspawn import Bubblewrap, ConfigError, Direct, Limits, TransportError
from machine import MARK, bubblewrap_works, eventually

pytestmark = pytest.mark.anyio

SPACES = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
MODES = {
    "direct": Direct(default_timeout=60),
    "bubblewrap": Bubblewrap(share_env=[MARK], default_timeout=60),
}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Give each test its own temporary directory, and check that it leaves no folder there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not eventually(lambda: list(tmp_path.glob("anyspawn-box-*")))


@pytest.fixture(params=["direct", pytest.param("bubblewrap", marks=SPACES)])
def sandbox(request):
    return MODES[request.param]


async def test_a_stream_to_a_port(sandbox):
    """In a box of Direct, connect() reaches the host's own loopback interface."""
    if isinstance(sandbox, Bubblewrap):
        sandbox = attrs_with_python()
    async with anyspawn.open_box(sandbox) as box:
        await boxes.connected(box, sys.executable, 4 * 2**20)
        for port, error in ((0, ValueError), (65536, ValueError), ("80", TypeError)):
            with pytest.raises(error, match="port"):
                await box.connect(port)


async def test_a_folder_that_was_there(tmp_path):
    """A folder that existed before remains after the box."""
    work = tmp_path / "work"
    work.mkdir()
    async with anyspawn.open_box(Direct(), workdir=work) as box:
        await box.write_file("x", b"1")
    assert (work / "x").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("sandbox", "fields", "error", "words"),
    [
        (Direct(), {"workdir": "relative"}, ConfigError, "workdir"),
        (Bubblewrap(resident=1), {}, ConfigError, "resident"),
        ("no_such_mode", {}, ConfigError, "no_such_mode"),
        (object(), {}, TypeError, "sandbox"),
        (Direct(), {"restore": "/no/such/file"}, FileNotFoundError, "no/such"),
    ],
    ids=["workdir", "resident", "mode", "sandbox", "restore"],
)
async def test_what_cannot_be_a_box(sandbox, fields, error, words):
    entered = False
    with pytest.raises(error, match=words):
        async with anyspawn.open_box(sandbox, **fields):
            entered = True
    assert not entered


@SPACES
class TestNamespaces:
    async def test_the_box_ends_under_a_stream(self):
        """When the box ends, a reader that waits gets an error, and so does a later call."""
        async with anyio.create_task_group() as tasks:
            async with (
                anyspawn.open_box(attrs_with_python()) as box,
                box.open_process([sys.executable, "-c", boxes.SERVER]) as server,
            ):
                port = int(await server.stdout.receive())
                stream = await box.connect(port)

                async def wait():
                    with pytest.raises((anyio.ClosedResourceError, anyio.BrokenResourceError)):
                        await stream.receive()

                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await box.spawn(["sh", "-c", "kill -9 -1"], timeout=None)
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()
            with pytest.raises(TransportError):
                await box.connect(port)

    async def test_a_call_has_no_more_rights_than_the_first_program(self):
        """A call has no capability, the same seccomp filter, and cannot gain rights."""
        status = ["grep", "-E", "^(Cap|Seccomp:|NoNewPrivs)", "/proc/self/status"]
        alone = await anyspawn.spawn(status, sandbox=Bubblewrap(), check=True)
        async with anyspawn.open_box(Bubblewrap()) as box:
            assert (await box.spawn(status, check=True)).text == alone.text

    async def test_limits_are_the_box_s(self):
        """The limits apply to the box as a whole: a file of one call leaves less space for the
        next.
        """
        async with anyspawn.open_box(Bubblewrap(limits=Limits(tmp="8M"))) as box:
            await box.write_file("x", bytes(6 * 2**20))
            with pytest.raises(anyspawn.ExitError, match="No space left"):
                await box.write_file("y", bytes(6 * 2**20))
            assert await box.list_dir() == ["x"]

    async def test_what_the_box_itself_needs_cannot_be_replaced(self):
        """The folder with the box's own pipes is read-only inside."""
        async with anyspawn.open_box(Bubblewrap()) as box:
            done = await box.spawn(
                ["sh", "-c", "cd /dev/shm/.anyspawn && ln -s /etc/passwd x; rm -f call; mkfifo y"]
            )
            assert done.stderr.count(b"Read-only") == 3

    async def test_the_place_ends(self):
        """A hostile program kills everything in the box. Running and later calls get an error, and
        none hangs.
        """
        async with anyspawn.open_box(Bubblewrap()) as box:
            await box.write_file("x", b"")
            done = await box.spawn(["sh", "-c", "kill -9 -1; sleep 987"], timeout=None)
            assert isinstance(done.error, TransportError)
            with pytest.raises(TransportError, match="box is gone") as caught:
                await box.read_file("x")
            assert caught.value.started is False

    @pytest.mark.skipif(os.getuid() != 0, reason="needs root")
    async def test_another_user(self, monkeypatch):
        folder = tempfile.TemporaryDirectory(dir="/tmp")  # another user cannot enter the test's own
        monkeypatch.setattr(tempfile, "tempdir", folder.name)
        os.chmod(folder.name, 0o711)
        sandbox = Bubblewrap(user="65534:65534")
        with folder:
            async with anyspawn.open_box(sandbox, workdir="/work") as box:
                await box.write_file("x", b"1")
                assert await box.read_file("x") == b"1"
                assert (await box.spawn(["id", "-u"], check=True)).text == "65534\n"
            assert not list(Path(folder.name).glob("anyspawn-box-*"))


def attrs_with_python():
    return Bubblewrap(readonly=sorted({sys.prefix, sys.base_prefix}))
