"""A call's outcome on the command line: an exit status, a line for stderr, a JSON object. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs

from anyspawn import (
    Cleanup,
    Completed,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
)

__all__ = ["OWN_FAILURE", "exit_status", "reason", "to_json"]

OWN_FAILURE = 125
"""The exit status for failures that are not the program's: the sandbox, wrong options, too much
output.
"""

_PROGRAMS_FAULT = {"not_found", "not_executable", "too_long"}
"""Kinds of `NotStartedError` for which a shell has a status."""


def exit_status(completed: Completed) -> int:
    """Return the exit status: the program's own, or the one that shells, ``timeout`` and ``docker
    run`` use.
    """
    error, code = completed.error, completed.returncode
    if isinstance(error, SpawnTimeoutError):
        return 124
    if isinstance(error, NotStartedError):
        return error.exit_code if error.kind in _PROGRAMS_FAULT else OWN_FAILURE
    if (error is None or isinstance(error, ExitError)) and code is not None:
        return 128 - code if code < 0 else code
    return OWN_FAILURE


def reason(completed: Completed) -> str:
    """Return the line for stderr; empty if the program ran and exited, with any status."""
    error, code = completed.error, completed.returncode
    said = []
    if isinstance(error, OutputLimitError):
        said = [
            error.message.partition(";")[0],
            "raise --output-limit",
        ]  # the rest is about Python arguments
    elif error is not None and not (
        isinstance(error, ExitError) and code is not None and code >= 0
    ):
        said = [error.message]
    if completed.output_incomplete:
        said.append("its output may be incomplete")
    if completed.cleanup is Cleanup.UNCONFIRMED:
        said.append("something of it may still run")
    return " ".join("; ".join(said).split())


def to_json(completed: Completed) -> str:
    """Return the outcome as a JSON object in one line; output that is not UTF-8 is in
    ``*_base64``.
    """
    error = completed.error
    fields: dict[str, Any] = {
        "returncode": completed.returncode,
        **_text("stdout", completed.stdout),
        **_text("stderr", completed.stderr),
        "stdout_total": completed.stdout_total,
        "stderr_total": completed.stderr_total,
        "output_incomplete": completed.output_incomplete,
        "duration": round(completed.duration, 6),
        "error": error and {"kind": type(error).__name__, "message": error.message},
        "cleanup": completed.cleanup.value,
    }
    if completed.egress is not None:
        fields["egress"] = attrs.asdict(completed.egress)
    return json.dumps(fields)


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
