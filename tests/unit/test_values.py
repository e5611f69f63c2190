"""Values work as callers use them: with defaults, copied, pickled, and printed."""

from __future__ import annotations

import pickle

import anyio
import pytest

import anyspawn
from anyspawn import (
    Bubblewrap,
    Command,
    Completed,
    Direct,
    DockerExec,
    DockerRun,
    Fill,
    KubectlExec,
    KubectlRun,
    open_process,
    spawn,
)

SANDBOXES = [
    Direct(max_concurrent=2),
    Bubblewrap(resident=2),
    DockerRun("busybox", resident=1),
    DockerExec("box", resident=1),
    KubectlExec("pod"),
    KubectlRun("busybox"),
]


@pytest.mark.parametrize("sandbox", SANDBOXES, ids=lambda sandbox: sandbox.name)
def test_sandboxes_and_launches_can_be_pickled(sandbox):
    """The copy is equal, and turns a command into the same launch."""
    copy = pickle.loads(pickle.dumps(sandbox))
    assert copy == sandbox
    launch = sandbox.launch(Command(["cat", "?"], id="ab" * 8))
    again = pickle.loads(pickle.dumps(launch))
    assert again == launch
    assert [type(arg) for arg in again.argv] == [type(arg) for arg in launch.argv]


@pytest.mark.parametrize(
    "given",
    [{"timeout": "default"}, {"timeout": None}, {"grace": 0.0}, {"stdin": b""}, {"env": ()}],
    ids=repr,
)
def test_nothing_is_given_beside_a_command(given):
    """Even a default value is refused beside a Command: it would be ignored, or override the
    Command's own.
    """
    with pytest.raises(TypeError, match="beside a Command"):
        anyio.run(lambda: spawn(Command(["true"], timeout=0.3), **given))
    if "stdin" not in given:
        with pytest.raises(TypeError, match="beside a Command"):
            open_process(Command(["true"]), **given)


def test_a_mode_by_its_name():
    """A mode's name stands for a sandbox of that mode with defaults; an unknown name lists the
    known ones.
    """
    assert anyio.run(lambda: spawn(["echo", "x"], sandbox="direct")).text == "x\n"
    with pytest.raises(anyspawn.ConfigError, match="direct"):
        anyio.run(lambda: spawn(["echo", "x"], sandbox="dirct"))


@pytest.mark.parametrize("timeout", [0, -1, 10**400, float("nan"), "5", True])
def test_a_timeout_that_is_none(timeout):
    """The error names the timeout."""
    with pytest.raises((TypeError, ValueError), match="timeout"):
        Command(["true"], timeout=timeout)


def test_an_outcome_is_short_to_look_at():
    """The repr leaves out the runner's argv and most of a long output."""
    done = Completed(argv=("p",), runner_argv=("docker", "x" * 500), stdout=b"y" * 500)
    assert "docker" not in repr(done)
    assert len(repr(done)) < 400
    assert (done.ok, done.text, done.stderr_text) == (True, "y" * 500, "")


def test_a_placeholder_is_known_by_its_type():
    """Placeholders have their own type, so the same text from a caller stays as it is."""
    launch = DockerRun("busybox").launch(Command(["echo", "io.anyspawn.owner=?", "/dev/fd/?"]))
    filled = launch.filled(owner="me")
    assert "io.anyspawn.owner=me" in filled.argv
    assert filled.argv[-2:] == ("io.anyspawn.owner=?", "/dev/fd/?")
    assert isinstance(Fill("a?", "b"), str)
    assert launch.fd_args == ()
