"""Wrong arguments raise errors that name the argument, before anything starts."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import anyio
import attrs
import pytest

import anyspawn
from anyspawn import (
    Cleanup,
    Command,
    Completed,
    ExitError,
    Launch,
    NotStartedError,
    TransportError,
    spawn,
)
from anyspawn._env import Env

WRONG = [
    (TypeError, "argv", {"argv": "ls -l"}),
    (TypeError, "argv", {"argv": b"ls"}),
    (TypeError, "argv", {"argv": None}),
    (ValueError, "argv", {"argv": []}),
    (ValueError, "argv", {"argv": [""]}),
    (TypeError, r"argv\[1\]", {"argv": ["ls", 1]}),
    (ValueError, r"argv\[1\].*NUL", {"argv": ["ls", "a\0b"]}),
    (ValueError, r"argv\[0\].*surrogate", {"argv": ["\ud800"]}),
    (TypeError, "stdin", {"stdin": "text"}),
    (TypeError, "env", {"env": "A=1"}),
    (TypeError, "env", {"env": 3}),
    (TypeError, "env", {"env": {"A": 1}}),
    (ValueError, "env", {"env": {"": "x"}}),
    (ValueError, "env", {"env": {"A=B": "x"}}),
    (ValueError, "env.*A.*NUL", {"env": {"A": "x\0"}}),
    (ValueError, "env", {"env": ["=x"]}),
    (ValueError, "cwd", {"cwd": ""}),
    (TypeError, "cwd", {"cwd": 3}),
    (ValueError, "cwd.*NUL", {"cwd": "/\0"}),
    (TypeError, "user", {"user": 1000}),
    (ValueError, "user", {"user": ""}),
    (ValueError, "user", {"user": "--privileged"}),
    (ValueError, "user", {"user": "a:b:c"}),
    (ValueError, "user.*NUL", {"user": "a\0"}),
    (TypeError, "timeout", {"timeout": "5s"}),
    (TypeError, "timeout", {"timeout": True}),
    (ValueError, "timeout", {"timeout": math.nan}),
    (ValueError, "wait_delay", {"wait_delay": -1}),
    (ValueError, "wait_delay", {"wait_delay": math.inf}),
    (TypeError, "grace", {"grace": None}),
    (TypeError, "output_limit", {"output_limit": 1.5}),
    (ValueError, "output_limit", {"output_limit": -1}),
    (ValueError, "overflow", {"overflow": "drop"}),
    (TypeError, "merge_stderr", {"merge_stderr": "yes"}),
    (TypeError, "on_output", {"on_output": 3}),
]


@pytest.mark.parametrize(
    "sandbox",
    [
        anyspawn.DockerExec("box", supervisor="off"),
        anyspawn.KubectlExec("pod", supervisor="off"),
    ],
    ids=lambda sandbox: sandbox.name,
)
def test_streams_that_cannot_be_merged_in_order(sandbox):
    """Without a supervisor, these modes cannot keep the order of the two streams, so
    they refuse.
    """
    with pytest.raises(anyspawn.ConfigError, match="merge_stderr"):
        sandbox.launch(Command(["true"], merge_stderr=True))


@pytest.mark.parametrize(("kind", "message", "fields"), WRONG)
def test_wrong_arguments(kind, message, fields):
    """Command and spawn refuse the same arguments."""
    fields = {"argv": ["true"], **fields}
    with pytest.raises(kind, match=message):
        Command(**fields)
    with pytest.raises(kind, match=message):
        anyio.run(lambda: spawn(**fields))


def test_wrong_id():
    """An id becomes part of labels and names, so it must be hexadecimal."""
    with pytest.raises(ValueError, match="id"):
        Command(["true"], id="../x")


def test_a_wrong_value_is_not_shown():
    """The error names the variable but does not show its value."""
    with pytest.raises(ValueError, match="TOKEN") as caught:
        Command(["true"], env={"TOKEN": "s3cret\0"})
    assert "s3cret" not in str(caught.value)


def test_right_arguments():
    """Paths, tuples and bytes-like objects are accepted; ids are unique."""
    command = Command(
        (Path("/bin/cat"), "x"), stdin=bytearray(b"x"), cwd=Path("/"), timeout=math.inf
    )
    assert (command.argv, command.stdin, command.cwd) == (("/bin/cat", "x"), b"x", "/")
    assert Command(["true"]).id != Command(["true"]).id


def test_fields_beside_a_command():
    """An argument beside a Command would be ignored, so it is refused."""
    with pytest.raises(TypeError, match="timeout"):
        anyio.run(lambda: spawn(Command(["true"]), timeout=3))
    assert anyio.run(lambda: spawn(Command(["true"]))).error is None


def test_no_sandbox():
    with pytest.raises(TypeError, match="sandbox"):
        anyio.run(lambda: spawn(["true"], sandbox=object()))


def test_values_are_frozen_and_can_be_copied():
    """Values are immutable, and survive pickle and deepcopy."""
    command = Command(["true"], env={"A": "1"})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        command.timeout = 3
    assert pickle.loads(pickle.dumps(command)) == copy.deepcopy(command) == command
    assert hash(command) == hash(attrs.evolve(command))
    assert command.env["A"] == "1"


def test_env_forms():
    """A mapping and strings mean the same. Bare names are looked up on the host, and dropped if
    unset.
    """
    env = Env(["A=1=2", "B", "C=", "A=3", "D"])
    assert dict(env) == {"A": "3", "B": None, "C": "", "D": None}
    assert env.look_up({"B": "host"}) == {"A": "3", "B": "host", "C": ""}
    assert env != 3
    assert len(env) == 4


def test_outcome_and_error_know_each_other():
    """A Completed sets itself on its error, whoever makes it. check() raises the error, or returns
    the outcome.
    """
    error = ExitError("ended with 3")
    done = Completed(argv=("x",), returncode=3, error=error, cleanup=Cleanup.NOT_NEEDED)
    assert error.completed is done
    with pytest.raises(ExitError):
        done.check()
    fine = Completed(argv=("x",), returncode=0)
    assert fine.check() is fine


def test_errors_carry_their_data():
    """Errors carry their data: why nothing started, and whether the program ran."""
    assert NotStartedError("no such file").reason == "no such file"
    assert TransportError("lost").started is None
    assert TransportError("refused", started=False).started is False
    assert issubclass(anyspawn.SpawnTimeoutError, TimeoutError)
    assert issubclass(anyspawn.ConfigError, ValueError)
    for name in (
        "ExitError",
        "OutputLimitError",
        "NotStartedError",
        "TransportError",
        "SpawnTimeoutError",
    ):
        assert issubclass(getattr(anyspawn, name), anyspawn.SpawnError)


def test_launch_checks_its_argv():
    """A sandbox's mistake is found as early as a caller's."""
    with pytest.raises(TypeError, match="argv"):
        Launch(argv="ssh host")
