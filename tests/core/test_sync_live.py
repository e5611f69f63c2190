"""Blocking calls for live processes, Python sessions and streams of a box."""

from __future__ import annotations

import signal
import sys
import threading

import anyio
import pytest

import boxes
from anyspawn import (
    Bubblewrap,
    Cleanup,
    ConfigError,
    Direct,
    NotStartedError,
    PlantedError,
    _sync,
    sync,
)
from machine import bubblewrap_works

READONLY = sorted({sys.prefix, sys.base_prefix})


@pytest.fixture(scope="module", autouse=True)
def loop():
    """Start the event loop before the tests, because its thread and descriptors stay; stop it
    afterwards.
    """
    sync.spawn(["true"])
    yield
    _sync._loop.stop()


@pytest.fixture(params=["direct", "bubblewrap"])
def box(request):
    if request.param == "bubblewrap" and not bubblewrap_works():
        pytest.skip("bwrap does not work here")
    sandbox = Direct() if request.param == "direct" else Bubblewrap(readonly=READONLY)
    with sync.open_box(sandbox) as box:
        yield box


def test_a_live_process(box):
    """A live process talks over its streams, reports its exit, and is killed when its block is
    left.
    """
    script = "cat; echo over >&2; exit 3"
    with box.open_process(["sh", "-c", script]) as process:
        process.stdin.send(b"in")
        assert process.stdout.receive() == b"in"
        assert process.returncode is None
        process.stdin.close()
        assert list(process.stdout) == []
        assert b"".join(process.stderr) == b"over\n"
        assert process.wait() == 3
    assert process.completed.returncode == 3
    with box.open_process(["sleep", "987"], grace=0.1) as process:
        process.send_signal(signal.SIGTERM)
        process.wait()
    with pytest.raises(ZeroDivisionError), box.open_process(["sleep", "987"]) as process:
        raise ZeroDivisionError
    assert process.completed.cleanup is Cleanup.CONFIRMED
    with pytest.raises(NotStartedError), box.open_process(["no-such-program"]):
        raise AssertionError
    with box.open_process(["cat"], tty=True) as process:
        process.resize(10, 80)


def test_another_thread_closes_what_one_waits_for(box):
    """A thread that waits for output gets a ClosedResourceError when another one closes the
    process.
    """
    raised = []
    with box.open_process(["cat"]) as process:

        def wait():
            try:
                process.stdout.receive()
            except anyio.ClosedResourceError as exc:
                raised.append(exc)

        waiting = threading.Thread(target=wait)
        waiting.start()
        process.close()
        waiting.join()
    assert raised


def test_a_python_that_stays(box):
    with box.python(sys.executable) as session:
        assert session.version.startswith("3.")
        session.run("x = 6")
        assert session.run("x * 7").data == 42
    with pytest.raises(anyio.ClosedResourceError):
        session.run("x")


def test_a_stream_to_a_port(box):
    with box.open_process([sys.executable, "-c", boxes.SERVER]) as server:
        port = int(server.stdout.receive())
        with box.connect(port) as stream:
            stream.send(b"Ehello")
            stream.send_eof()
            assert b"".join(stream) == b"helloend"
    with pytest.raises(ConnectionRefusedError):
        box.connect(port)


def test_a_box_that_cannot_be_attached_to(box):
    with pytest.raises(ConfigError, match="belongs to one process"), sync.attach_box(box.id):
        raise AssertionError


@pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
def test_what_a_box_left_that_the_host_would_run(tmp_path):
    """The error is raised at the end of the block, or added as a note to the exception that ended
    the block.
    """
    sandbox = Bubblewrap(writable=[tmp_path], workdir=tmp_path)
    with pytest.raises(PlantedError, match="bashrc"), sync.open_box(sandbox) as box:
        box.write_file(".bashrc", b"x")
    with pytest.raises(ZeroDivisionError) as caught, sync.open_box(sandbox) as box:
        box.write_file(".profile", b"x")
        raise ZeroDivisionError
    assert "profile" in caught.value.__notes__[0]
