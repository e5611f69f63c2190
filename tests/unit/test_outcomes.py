"""The outcome of a call follows from its observations; a table lists the cases."""

from __future__ import annotations

import pickle

import pytest

from anyspawn import (
    Command,
    ExitError,
    Launch,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    Task,
    TransportError,
)
from anyspawn._spawn.outcome import Seen, outcome
from anyspawn._spawn.phase import Why
from anyspawn.supervisor import Report

PLAIN = Launch(argv=["p"])
REMOTE = Launch(argv=["docker", "run", "p"], remote=True)
COMMAND = Command(["p"])


def explain(completed, report):
    return NotStartedError("not there", kind="not_found") if report.unstarted == 127 else None


SUPERVISED = Launch(
    argv=["docker", "exec", "c", "p"], remote=True, task=Task(env={}, stdin=b"", explain=explain)
)
ENDED = Report(ready=True, begun=True, exit_status=3, whole=True, clean=True, swept=True)


@pytest.mark.parametrize(
    ("launch", "seen", "error", "status", "words"),
    [
        (PLAIN, Seen(returncode=0), None, 0, ""),
        (PLAIN, Seen(returncode=3), ExitError, 3, "exited with status 3"),
        (PLAIN, Seen(returncode=-9), ExitError, -9, "was killed by SIGKILL (signal 9)"),
        (PLAIN, Seen(returncode=-64), ExitError, -64, "signal 64"),
        (PLAIN, Seen(returncode=None), TransportError, None, "its status is unknown"),
        (PLAIN, Seen(returncode=-9, why=Why.TIMEOUT, timeout=2.0), SpawnTimeoutError, -9, "timed out after 2 s and was killed"),
        (PLAIN, Seen(returncode=0, why=Why.TIMEOUT, timeout=2.0), SpawnTimeoutError, 0, "timed out"),
        (PLAIN, Seen(returncode=-9, why=Why.OVERFLOW, overflowed="stderr"), OutputLimitError, -9, "to stderr"),
        (PLAIN, Seen(returncode=-9, why=Why.CLOSED), None, -9, ""),
        (PLAIN, Seen(returncode=0, exited=False), TransportError, None, "status is unknown"),
        (REMOTE, Seen(returncode=-9), TransportError, None, "was killed from outside"),
        (SUPERVISED, Seen(returncode=0, report=ENDED), ExitError, 3, "exited with status 3"),
        (SUPERVISED, Seen(returncode=137, report=Report(), why=Why.TIMEOUT, timeout=1.0), SpawnTimeoutError, None, "docker was not ready within 1 s"),
        (SUPERVISED, Seen(returncode=0, report=Report(ready=True, begun=True, unstarted=127, exit_status=127)), NotStartedError, None, "not there"),
    ],
)  # fmt: skip
def test_each_outcome(launch, seen, error, status, words):
    """The error and the program's own status follow from the observations."""
    completed = outcome(launch, COMMAND, seen)
    assert type(completed.error) is (type(None) if error is None else error)
    assert completed.returncode == status
    assert words in str(completed.error or "")
    assert completed.argv == ("p",)
    assert completed.runner_argv == launch.argv
    assert completed.ok is (error is None)


def test_the_clients_words_stand_for_a_program_that_never_began():
    """If the program never began, stderr is the client's message. If the shell could not execute
    it, the shell's message is dropped, because our error already says so.
    """
    before = Seen(returncode=1, report=Report(), opening=b"no such container")
    assert outcome(SUPERVISED, COMMAND, before).stderr == b"no such container"
    report = Report(ready=True, begun=True, unstarted=127, exit_status=127)
    after = Seen(returncode=0, report=report, stderr=b"sh: p: not found")
    assert outcome(SUPERVISED, COMMAND, after).stderr == b""


def test_the_error_ends_with_the_last_lines_of_stderr(monkeypatch):
    """The error quotes the last lines of stderr, with the values of variables masked; `message` and
    ``args`` do not contain them.
    """
    monkeypatch.setenv("MY_TOKEN", "host-secret")
    command = Command(["p"], env={"PASS": "my-secret"})

    def error_of(stderr, **seen):
        return outcome(PLAIN, command, Seen(returncode=3, stderr=stderr, **seen)).error

    assert str(error_of(b"one\n\n")) == "'p' exited with status 3; stderr: one"
    error = error_of(b"".join(b"line %d\n" % n for n in range(30)) + b"my-secret host-secret\x1b")
    assert str(error).splitlines()[0] == "'p' exited with status 3; stderr:"
    assert str(error).splitlines()[1:] == [
        *(f"  line {n}" for n in range(23, 30)),
        "  *** ***\\x1b",
    ]
    assert error.message == error.args[0] == "'p' exited with status 3"
    assert len(str(error_of(b"x" * 2**20))) < 1100
    assert "slow" in str(error_of(b"slow", why=Why.TIMEOUT, timeout=1.0))
    assert str(error_of(b"")) == "'p' exited with status 3"


def test_an_error_can_be_pickled():
    """A pickled error keeps its text, as workers that send errors to their parent need."""
    error = outcome(PLAIN, COMMAND, Seen(returncode=3, stderr=b"why")).error
    assert str(pickle.loads(pickle.dumps(error))) == "'p' exited with status 3; stderr: why"
