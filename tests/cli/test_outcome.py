"""Exit statuses, reasons and JSON of outcomes, as a table."""

from __future__ import annotations

import json

import pytest

from anyspawn import (
    Cleanup,
    Completed,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.cli.outcome import exit_status, reason, to_json


def outcome(returncode=None, error=None, **fields):
    return Completed(argv=("p",), returncode=returncode, error=error, **fields)


@pytest.mark.parametrize(
    ("completed", "status", "line"),
    [
        (outcome(0), 0, ""),
        (outcome(3, ExitError("exited")), 3, ""),
        (outcome(255, ExitError("exited")), 255, ""),
        (outcome(-9, ExitError("signal 9")), 137, "signal 9"),
        (outcome(-15, ExitError("signal 15")), 143, "signal 15"),
        (outcome(-9, SpawnTimeoutError("too long")), 124, "too long"),
        (outcome(0, SpawnTimeoutError("too long")), 124, "too long"),
        (
            outcome(-9, OutputLimitError("too much; use overflow")),
            125,
            "too much; raise --output-limit",
        ),
        (outcome(None, TransportError("no daemon")), 125, "no daemon"),
        (outcome(1, TransportError("no daemon")), 125, "no daemon"),
        (outcome(None, SpawnError("of a plugin")), 125, "of a plugin"),
        (outcome(None, ExitError("a status that got lost")), 125, "a status that got lost"),
        (
            outcome(None, NotStartedError("'p' is not executable", kind="not_executable")),
            126,
            "'p' is not executable",
        ),
        (outcome(None, NotStartedError("two\nlines")), 125, "two lines"),
        (outcome(0, output_incomplete=True), 0, "its output may be incomplete"),
        (outcome(0, cleanup=Cleanup.UNCONFIRMED), 0, "something of it may still run"),
        (outcome(0, cleanup=Cleanup.CONFIRMED), 0, ""),
        (
            outcome(-9, SpawnTimeoutError("too long"), cleanup=Cleanup.UNCONFIRMED),
            124,
            "too long; something of it may still run",
        ),
    ],
)
def test_each_outcome_has_one_status_and_one_line(completed, status, line):
    """The exit status and the line on stderr depend on the outcome only."""
    assert exit_status(completed) == status
    assert reason(completed) == line


def test_json_holds_text_as_text_and_bytes_as_base64():
    """UTF-8 output is text in the JSON; other output is base64 under another key."""
    found = json.loads(
        to_json(outcome(0, stdout="ü\n".encode(), stderr=b"\xff", stdout_total=3, stderr_total=1))
    )
    assert found["stdout"] == "ü\n"
    assert found["stderr_base64"] == "/w=="
    assert "stderr" not in found
    assert "stdout_base64" not in found


def test_json_names_the_error_and_what_became_of_the_work():
    """An error has its kind and message, or is null. An unknown return code is null."""
    failed = json.loads(
        to_json(outcome(None, TransportError("no daemon"), cleanup=Cleanup.UNCONFIRMED))
    )
    assert failed["error"] == {"kind": "TransportError", "message": "no daemon"}
    assert failed["returncode"] is None
    assert failed["cleanup"] == "unconfirmed"
    assert json.loads(to_json(outcome(0)))["error"] is None
