"""Boxes that need no engine: in a folder, and in namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import anyspawn
import boxes
from anyspawn import Bubblewrap, ConfigError, Direct, Limits, TransportError
from machine import MARK, bubblewrap_works, eventually, processes_with, settled_below

pytestmark = pytest.mark.anyio

SPACES = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
MODES = {
    "direct": Direct(default_timeout=60),
    "bubblewrap": Bubblewrap(share_env=[MARK], default_timeout=60),
}


def folders():
    return list(Path(tempfile.gettempdir()).glob("anyspawn-box-*"))


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Of this test alone, in which no folder is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not eventually(folders)


@pytest.fixture(params=["direct", pytest.param("bubblewrap", marks=SPACES)])
def sandbox(request):
    return MODES[request.param]


@pytest.mark.parametrize(
    "check",
    [
        boxes.files,
        boxes.permissions,
        boxes.errors,
        boxes.calls,
        boxes.leaving,
        boxes.beside_each_other,
        boxes.wrong,
    ],
    ids=lambda check: check.__name__,
)
async def test_what_a_box_promises(check, sandbox):
    async with anyspawn.open_box(sandbox) as box:
        assert await box.list_dir() == []
        await check(box)


async def test_a_stream_to_a_port(sandbox):
    """In a folder that is one to the host's own loopback interface."""
    if isinstance(sandbox, Bubblewrap):
        sandbox = attrs_with_python()
    async with anyspawn.open_box(sandbox) as box:
        await boxes.connected(box, sys.executable, 4 * 2**20)
        for port, error in ((0, ValueError), (65536, ValueError), ("80", TypeError)):
            with pytest.raises(error, match="port"):
                await box.connect(port)


async def test_trees(sandbox, tmp_path):
    async with anyspawn.open_box(sandbox) as box:
        await boxes.trees(box, tmp_path)


async def test_what_was_saved(sandbox, tmp_path):
    async with anyspawn.open_box(sandbox) as box:
        await boxes.saved(box, sandbox, tmp_path)


async def test_a_box_without_a_block(sandbox):
    """Is closed by any task, once or twice; what is under way is ended, and later calls fail."""
    box = await anyspawn.start_box(sandbox)
    await box.write_file("x", b"1")
    ended = []

    async def call():
        ended.append(
            await box.spawn(["sh", "-c", "echo; sleep 987"], on_output=lambda *_: up.set())
        )

    up = anyio.Event()
    async with anyio.create_task_group() as tasks:
        if not isinstance(sandbox, Direct):
            tasks.start_soon(call)
            await up.wait()
        tasks.start_soon(box.aclose)
    await box.aclose()
    if not isinstance(sandbox, Direct):
        assert isinstance(ended[0].error, TransportError)
        with pytest.raises(TransportError):
            await box.read_file("x")


async def test_a_cancelled_call(sandbox):
    """Ends, with what it started; the box goes on."""
    async with anyspawn.open_box(sandbox) as box:
        with anyio.move_on_after(1) as scope:
            await box.spawn(["sh", "-c", "touch here; setsid sleep 987 & sleep 987"])
        assert scope.cancelled_caught
        assert await box.list_dir() == ["here"]


async def test_a_cancelled_box(sandbox):
    """Leaves nothing: the fixtures look."""
    with anyio.move_on_after(2) as scope:
        async with anyspawn.open_box(sandbox) as box:
            await box.write_file("x", b"")
            await box.spawn(["sh", "-c", "setsid sleep 987 & sleep 987"], timeout=None)
    assert scope.cancelled_caught


HOST = """
import sys, anyio, anyspawn
async def main():
    sandbox = anyspawn.Direct() if sys.argv[2] == "direct" else anyspawn.Bubblewrap(share_env=["ANYSPAWN_TEST"])
    async with anyspawn.open_box(sandbox) as box:
        await box.write_file("x", b"1")
        if sys.argv[2] != "direct":
            left = await box.spawn(["sh", "-c", "sleep 987 >/dev/null 2>&1 &"], leave="detached")
            assert left.cleanup is anyspawn.Cleanup.LEFT
        async with box.open_process(["sh", "-c", "sleep 987 & echo; wait"]) as process:
            await process.stdout.receive()
            print("ready", flush=True)
            await process.wait()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("mode", ["direct", pytest.param("bubblewrap", marks=SPACES)])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_host_is_killed(backend, mode, tmp_path):
    """No folder of the box is left, and in namespaces no process."""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-c", HOST, backend, mode]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as host:
        assert host.stdout.readline() == "ready\n"
        assert folders()
        below = settled_below(host.pid)
        host.kill()
    assert not eventually(folders, 60)
    if mode == "direct":  # which confines nothing
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not eventually(lambda: processes_with(os.environ[MARK]), 60)


async def test_paths_stay_in_a_folder(tmp_path):
    """Of a box of Direct, by whatever way they would lead out."""
    (tmp_path / "secret").write_text("s")
    work = tmp_path / "work"
    async with anyspawn.open_box(Direct(), workdir=work) as box:
        (work / "file").symlink_to("../secret")
        (work / "up").symlink_to("..")
        for path in ("../secret", "/etc/passwd", "file", "up/secret", str(tmp_path / "secret")):
            for call in (box.read_file, box.list_dir, lambda p: box.write_file(p, b"x")):
                with pytest.raises(PermissionError):
                    await call(path)
        with pytest.raises(PermissionError):
            await box.spawn(["true"], cwd="up")
        with pytest.raises(PermissionError):
            await box.remove("up/secret")
        await box.remove("up")
        await box.remove("file")
        assert await box.list_dir() == []
    assert (tmp_path / "secret").read_text() == "s"
    assert work.is_dir()  # it was there for others


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
    async def test_what_is_shared(self):
        """/tmp, and the loopback interface, of which the host has no part."""
        serve = (
            "import socket; s = socket.create_server(('127.0.0.1', 8000)); print('up', flush=True); "
            "s.accept()[0].sendall(b'hello')"
        )
        ask = "import socket; print(socket.create_connection(('127.0.0.1', 8000)).recv(9))"
        sandbox = attrs_with_python()
        async with anyspawn.open_box(sandbox) as box:
            await box.spawn(["sh", "-c", "echo 1 >/tmp/x"], check=True)
            assert await box.read_file("/tmp/x") == b"1\n"
            async with box.open_process([sys.executable, "-c", serve]) as server:
                assert await server.stdout.receive() == b"up\n"
                done = await box.spawn([sys.executable, "-c", ask], check=True)
                assert done.text == "b'hello'\n"

    async def test_the_box_ends_under_a_stream(self):
        """Whoever waits for data is told, and so is whoever asks later."""
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
        """No capability, the filter of system calls, and no way to gain rights."""
        status = ["grep", "-E", "^(Cap|Seccomp:|NoNewPrivs)", "/proc/self/status"]
        alone = await anyspawn.spawn(status, sandbox=Bubblewrap(), check=True)
        async with anyspawn.open_box(Bubblewrap()) as box:
            assert (await box.spawn(status, check=True)).text == alone.text

    async def test_limits_are_the_box_s(self):
        """What one call holds counts for the next."""
        async with anyspawn.open_box(Bubblewrap(limits=Limits(tmp="8M"))) as box:
            await box.write_file("x", bytes(6 * 2**20))
            with pytest.raises(anyspawn.ExitError, match="No space left"):
                await box.write_file("y", bytes(6 * 2**20))
            assert await box.list_dir() == ["x"]

    async def test_what_the_box_itself_needs_cannot_be_replaced(self):
        """The folder of its pipes is read-only inside."""
        async with anyspawn.open_box(Bubblewrap()) as box:
            done = await box.spawn(
                ["sh", "-c", "cd /dev/shm/.anyspawn && ln -s /etc/passwd x; rm -f call; mkfifo y"]
            )
            assert done.stderr.count(b"Read-only") == 3

    async def test_the_place_ends(self):
        """As a hostile program could do it: calls under way, and those that come later, are told,
        and none waits.
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
        monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # others cannot enter that of a test
        async with anyspawn.open_box(Bubblewrap(user="65534:65534"), workdir="/work") as box:
            await box.write_file("x", b"1")
            assert await box.read_file("x") == b"1"
            assert (await box.spawn(["id", "-u"], check=True)).text == "65534\n"


def attrs_with_python():
    return Bubblewrap(readonly=sorted({sys.prefix, sys.base_prefix}))
