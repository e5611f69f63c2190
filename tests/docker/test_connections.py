"""The outcomes of calls when the connection to the daemon breaks or a clock is wrong."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time

import anyio
import pytest

from anyspawn import Cleanup, DockerExec, DockerRun, ExitError, TransportError, spawn
from engines import docker, processes_in
from machine import eventually

pytestmark = pytest.mark.anyio


class Front:
    """A TCP socket in front of the daemon's socket whose connections can be cut."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.socket(socket.AF_UNIX)
                far.connect("/var/run/docker.sock")
                pump = threading.Thread(target=self._pump, args=(near, far))
                self._pairs.append((near, far, pump))
                pump.start()

    def _pump(self, near, far):
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while selector.get_map():
                for key, _ in selector.select():
                    data = key.fileobj.recv(65536)
                    if data:
                        key.data.sendall(data)
                    else:
                        selector.unregister(key.fileobj)
                        key.data.shutdown(socket.SHUT_WR)

    def cut(self):
        """Cut all current connections."""
        for near, far, _ in self._pairs:
            for end in (near, far):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()
        for near, far, pump in self._pairs:
            pump.join()
            near.close()
            far.close()


@pytest.fixture
def front(monkeypatch):
    front = Front()
    monkeypatch.setenv("DOCKER_HOST", front.host)
    yield front
    monkeypatch.undo()
    front.close()


@pytest.fixture(scope="module")
def bare(containers):
    """A container without sh."""
    name = containers("busybox", cmd=("sleep", "1000"))
    docker("exec", name, "rm", "/bin/sh")
    return name


def sandboxes(mode, container, bare):
    return {
        "run": lambda: DockerRun("busybox"),
        "run ahead": lambda: DockerRun("busybox", resident=1),
        "exec": lambda: DockerExec(container),
        "exec off": lambda: DockerExec(container, supervisor="off"),
        "exec without sh": lambda: DockerExec(bare),
        "exec resident": lambda: DockerExec(container, resident=1),
    }[mode]()


MODES = ["run", "run ahead", "exec", "exec off", "exec without sh", "exec resident"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_that_is_lost_while_the_program_runs(mode, front, busybox, bare):
    """A lost connection is neither a success nor the program's exit. The clean-up is confirmed only
    if anyspawn could see it.
    """
    argv = ["ping", "-c", "5", "127.0.0.1"]

    def cut(stream, chunk):
        front.cut()

    async with sandboxes(mode, busybox, bare) as sandbox:
        done = await spawn(argv, sandbox=sandbox, timeout=60, on_output=cut)
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.returncode) == (True, None), done
    plain = mode in {"exec off", "exec without sh"}
    assert done.cleanup is (Cleanup.UNCONFIRMED if plain else Cleanup.CONFIRMED), done
    container = bare if mode == "exec without sh" else busybox
    assert not eventually(lambda: [args for args in processes_in(container) if "ping" in args], 30)


async def test_many_at_once_without_sh(bare):
    """Each call finds the exit of its own program, even if other calls look the same."""
    seen = []

    async def call(sandbox, program):
        done = await spawn([program], sandbox=sandbox, timeout=60)
        seen.append((program, done.returncode, type(done.error)))

    async with DockerExec(bare) as sandbox, anyio.create_task_group() as tasks:
        for program in ["true", "false"] * 5:
            tasks.start_soon(call, sandbox, program)
    assert sorted(seen, key=str) == [("false", 1, ExitError)] * 5 + [("true", 0, type(None))] * 5


@pytest.mark.parametrize("ahead", [-0.3, 3, 3600])
@pytest.mark.parametrize("mode", ["run", "exec off"])
async def test_a_clock_that_is_not_the_daemons(mode, ahead, monkeypatch, busybox, bare):
    """The host's clock may differ from the daemon's: calls have the same outcomes and do not wait
    longer.
    """
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    async with sandboxes(mode, busybox, bare) as sandbox:
        began = time.monotonic()
        for code in (125, 127):
            done = await spawn(["sh", "-c", f"exit {code}"], sandbox=sandbox, timeout=60)
            assert isinstance(done.error, ExitError), done
            assert done.returncode == code
        assert done.duration < 30 or time.monotonic() - began < 60
