"""Blocking calls: in any thread, interrupted, after a fork, and at the interpreter's exit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import anyspawn
from anyspawn import Bubblewrap, Direct, ExitError, NotStartedError, _sync, sync
from anyspawn.hooks import ExecToolHook, ToolRequest
from machine import bubblewrap_works, eventually, processes_with

SPACES = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
MODES = ["direct", pytest.param("bubblewrap", marks=SPACES)]


@pytest.fixture(scope="module", autouse=True)
def loop():
    """Start the event loop before the tests, because its thread and descriptors stay; stop it
    afterwards.
    """
    sync.spawn(["true"])
    yield
    _sync._loop.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "anyspawn sync"]


def hosted(code, *args, **options):
    """Run a script of a program that uses anyspawn.sync."""
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=100, **options
    )


def test_calls_of_threads_share_one_loop():
    """Four threads call at the same time, and each gets its own outcome."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as threads:
        argv = ["sh", "-c", "touch $1; until [ $(ls | wc -l) = 4 ]; do sleep 0.01; done", "sh"]
        calls = [threads.submit(sync.spawn, [*argv, str(n)], cwd=folder, env={}) for n in range(4)]
        assert all(call.result().ok for call in calls)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("anyspawn sync") == 1


def test_outcomes_and_errors():
    """Outcomes and errors are those of the async call."""
    assert sync.spawn(["cat"], stdin=b"in", check=True).stdout == b"in"
    assert isinstance(sync.spawn(["no-such-program"]).error, NotStartedError)
    with pytest.raises(ExitError):
        sync.spawn(["false"], check=True)
    with pytest.raises(TypeError, match="argv"):
        sync.spawn("ls")


@pytest.mark.parametrize("raised", [SystemExit, ZeroDivisionError])
def test_what_a_callback_raises(raised):
    """The exception reaches the caller, and no other call fails."""

    def refuse(*_):
        raise raised

    with pytest.raises(raised):
        sync.spawn(["sh", "-c", "echo; sleep 999"], on_output=refuse)
    assert sync.spawn(["true"]).ok


def test_a_callback_that_blocks():
    """A blocking call in a callback would wait for itself, so it raises an error that says so."""
    with pytest.raises(RuntimeError, match="callbacks"):
        sync.spawn(["echo"], on_output=lambda *_: sync.spawn(["true"]))


@pytest.mark.anyio
async def test_within_an_event_loop():
    """A blocking call works within an event loop, although it blocks that loop."""
    assert sync.spawn(["echo", "x"]).text == "x\n"
    assert (await anyspawn.spawn(["true"])).ok


@pytest.mark.parametrize("mode", MODES)
def test_a_box(mode, tmp_path):
    """A box has files and calls, and is gone after its block, even if an exception leaves it."""
    with sync.open_box(mode) as box:
        box.write_file("a", b"1")
        assert box.spawn(["cat", "a"], check=True).stdout == b"1"
        assert box.read_file("a") == b"1"
        assert box.list_dir() == ["a"]
        box.save(tmp_path / "box.tar")
        with pytest.raises(FileNotFoundError):
            box.read_file("b")
        assert repr(box).startswith("<anyspawn.sync.Box")
    mine = ZeroDivisionError()
    with (
        pytest.raises(ZeroDivisionError),
        sync.open_box(mode, restore=tmp_path / "box.tar") as other,
    ):
        assert other.list_dir() == ["a"]
        raise mine


def hook(name, **fields):
    script = 'cat >/dev/null; echo "{\\"allow\\": $1}"'
    allow = fields.pop("allow", "true")
    return ExecToolHook(name=name, command="sh", args=["-c", script, "sh", allow], **fields)


def test_hooks(tmp_path):
    """Hooks decide, in a single call or through a runner. Leaving the runner waits for its
    observers.
    """
    request = ToolRequest(name="x", args={})
    hooks = [hook("yes"), hook("no", allow="false")]
    assert not sync.run_hooks(hooks, "before_execution", request).allow
    watch = ExecToolHook(
        name="watch", command="sh", args=["-c", f"cat >{tmp_path}/seen"], mode="observe"
    )
    with sync.HookRunner([hook("yes"), watch]) as runner:
        assert runner.run("before_execution", request).allow
    assert (tmp_path / "seen").read_bytes()


INTERRUPTED = """
import os, signal, sys
from anyspawn import sync
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
try:
    sync.spawn(["sh", "-c", "setsid sleep 999 & echo up; sleep 999"], env={"TREE": "sync-01"},
               sandbox=sys.argv[1], timeout=None, on_output=interrupt)
except KeyboardInterrupt:
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                left += [pid] * (b"TREE=sync-01" in environ.read())
        except OSError:
            pass
    print(left, sync.spawn(["echo", "next"]).text.strip())
"""


@pytest.mark.parametrize("mode", MODES)
def test_interrupted(mode):
    """A KeyboardInterrupt ends the call: its processes are gone when the exception arrives, and the
    next call works.
    """
    host = hosted(INTERRUPTED, mode)
    assert host.stdout == "[] next\n", host.stderr
    assert not eventually(lambda: processes_with("sync-01"))


FORGETFUL = """
import sys, threading
from anyspawn import sync
block = sync.open_box(sys.argv[1])
box = block.__enter__()
box.write_file("a", b"")
threading.Thread(
    target=lambda: box.spawn(["sleep", "999"], env={"TREE": "sync-02"}, timeout=None), daemon=True
).start()
while "up" not in box.list_dir():
    box.spawn(["touch", "up"], env={"TREE": "sync-02"})
{end}
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_the_interpreters_exit(mode, end, tmp_path):
    """The interpreter's exit closes everything that is open, including calls of other threads, and
    does not hang.
    """
    host = hosted(
        FORGETFUL.replace("{end}", end), mode, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert host.returncode == {"pass": 0, "sys.exit(3)": 3}.get(end, host.returncode), host.stderr
    assert not list(tmp_path.iterdir())
    assert not processes_with("sync-02")


FORKED = """
import os, sys
from anyspawn import sync
with sync.open_box(sys.argv[1]) as box:
    box.write_file("a", b"1")
    child = os.fork()
    if child == 0:
        try:
            box.read_file("a")
        except RuntimeError as exc:
            assert "forked process" in str(exc), exc
            with sync.open_box(sys.argv[1]) as own:
                own.write_file("b", b"2")
                print(own.read_file("b"), sync.spawn(["echo", "child"]).text, flush=True)
    else:
        assert os.waitpid(child, 0)[1] == 0
        print(box.read_file("a"), sync.spawn(["echo", "parent"]).text, flush=True)
if child == 0:
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_forked_process(mode, tmp_path):
    """A forked process gets its own loop. Its parent's boxes stay with the parent, even if the
    child leaves their block.
    """
    host = hosted(FORKED, mode, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert host.stdout == "b'2' child\n\nb'1' parent\n\n", host.stderr
    assert not list(tmp_path.glob("anyspawn-box-*"))


@SPACES
def test_sandboxes_of_ones_own_are_taken():
    """Sandbox objects that hold state for their calls, such as places or residents, work too."""
    for sandbox in (Direct(max_concurrent=1), Bubblewrap(default_timeout=30)):
        assert sync.spawn(["echo", "x"], sandbox=sandbox).text == "x\n"
    assert Path("/proc/self").exists()
