"""Makes the `Completed` of a call from what is known of it. Pure."""

from __future__ import annotations

import errno
import os
import signal
from typing import Literal

from attrs import evolve, frozen

from anyspawn._model import Cleanup, Command, Completed, Launch, Overflow
from anyspawn._spawn.diagnose import HOST_ERRORS
from anyspawn._spawn.phase import Why
from anyspawn.exceptions import (
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.supervisor.protocol import Report

__all__ = ["Seen", "outcome", "with_reached"]

_OUT_OF_MEMORY = "the kernel killed a process of its container for lack of memory"
_LONGEST = 128 * 1024
"""Bytes of an argument or variable that Linux refuses (MAX_ARG_STRLEN in execve(2))."""


@frozen(kw_only=True)
class Seen:
    """What is known of a call.

    Args:
        why: Why it was ended, if it was.
        timeout: Its timeout, in seconds.
        returncode: The local process's status; ``None`` if it is unknown.
        exited: The local process has exited, whatever its status.
        report: The report of its supervisor, if it has one.
        opening: What the client wrote to both streams before the command's start.
        status: What the runner reported on its status descriptor.
        stdout, stderr, stdout_total, stderr_total: The program's output.
        overflow: Which part of the output was kept.
        overflowed: The stream that exceeded the limit.
        incomplete: A stream was still held when `wait_delay` ran out.
        duration: Seconds that it took.
        cleanup: The result of the clean-up.
        reached: A description of the limits that it reached.
    """

    why: Why | None = None
    timeout: float = 0.0
    returncode: int | None = None
    exited: bool = True
    report: Report | None = None
    opening: bytes = b""
    status: bytes = b""
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_total: int = 0
    stderr_total: int = 0
    overflow: Overflow = "error"
    overflowed: Literal["stdout", "stderr"] | None = None
    incomplete: bool = False
    duration: float = 0.0
    cleanup: Cleanup = Cleanup.NOT_NEEDED
    reached: str = ""


def outcome(launch: Launch, command: Command, seen: Seen) -> Completed:
    """Return the outcome of a call."""
    report, returncode = seen.report, seen.returncode if seen.exited else None
    stdout, stdout_total = seen.stdout, seen.stdout_total
    stderr, stderr_total = seen.stderr, seen.stderr_total
    if report is not None:
        if report.exit_status is not None:
            returncode = report.exit_status
        if report.unstarted is not None:
            stderr, stderr_total = b"", 0  # the shell's message, which the error replaces
            if command.merge_stderr:
                stdout, stdout_total = b"", 0
        elif not report.begun:
            stderr, stderr_total = seen.opening, len(seen.opening)
    completed = Completed(
        argv=command.argv,
        runner_argv=launch.argv,
        returncode=returncode,
        stdout=stdout,
        stderr=stderr,
        stdout_total=stdout_total,
        stderr_total=stderr_total,
        overflow=seen.overflow,
        output_incomplete=seen.incomplete,
        duration=seen.duration,
        cleanup=seen.cleanup,
    )
    error = _judge(launch, command, seen, completed)
    if error is None:
        return completed
    if _never_ran(error) and report is None:
        completed = _as_runners(command, completed)
    said = completed.stdout if command.merge_stderr else stderr
    if said and isinstance(error, (ExitError, SpawnTimeoutError, OutputLimitError)):
        from anyspawn._masks import Masks

        error.stderr_tail = Masks(command.env).last_lines(said)
    if isinstance(error, (NotStartedError, TransportError)):
        returncode = None  # the runner's status, if any, is not the program's
    elif report is not None:
        returncode = report.exit_status
    elif launch.remote and returncode is not None and returncode < 0:
        returncode = None  # the client's, not the program's
    return evolve(completed, returncode=returncode, error=error)


def _never_ran(error: SpawnError) -> bool:
    never = isinstance(error, TransportError) and error.started is False
    return never or isinstance(error, NotStartedError)


def _as_runners(command: Command, completed: Completed) -> Completed:
    """Return an outcome whose stderr has everything that may be the runner's, for `explain` to
    read.
    """
    if not command.merge_stderr or not completed.stdout:
        return completed
    said, total = completed.stdout, completed.stdout_total
    return evolve(
        completed,
        stdout=b"",
        stdout_total=0,
        stderr=completed.stderr + said,
        stderr_total=completed.stderr_total + total,
    )


def _judge(launch: Launch, command: Command, seen: Seen, completed: Completed) -> SpawnError | None:
    program, report = command.argv[0], seen.report
    match seen.why:
        case Why.OVERFLOW:
            return OutputLimitError(
                f"{program!r} wrote more than {command.output_limit} bytes to {seen.overflowed} "
                "and was killed; raise output_limit, or use overflow='truncate', 'head' or 'tail'"
            )
        case Why.TIMEOUT if report is not None and not report.ready:
            client = os.path.basename(launch.argv[0])
            return SpawnTimeoutError(
                f"{program!r} was not started: {client} was not ready within {seen.timeout:g} s"
            )
        case Why.TIMEOUT:
            return SpawnTimeoutError(
                f"{program!r} timed out after {seen.timeout:g} s and was killed"
            )
        case Why.CLOSED:
            return None  # it was ended because it was no longer wanted
    if report is not None and report.not_started and _is_too_long(command):
        message = f"{program!r} was not started: {HOST_ERRORS[errno.E2BIG]}"
        return NotStartedError(message, kind="too_long")
    if report is not None and launch.task is not None:
        error = launch.task.explain(completed, report)
    else:
        said = _as_runners(command, completed)
        error = launch.explain(said, seen.status) if launch.explain is not None else None
    error = error or _judge_status(launch, program, completed.returncode)
    return with_reached(error, seen.reached or (_OUT_OF_MEMORY if report and report.oom else ""))


def _is_too_long(command: Command) -> bool:
    """Whether one of these arguments and variables is too long for Linux."""
    env = (f"{name}={value}" for name, value in command.env.known().items())
    return any(len(os.fsencode(text)) >= _LONGEST for text in (*command.argv, *env))


def _judge_status(launch: Launch, program: str, code: int | None) -> SpawnError | None:
    if code is None:
        return TransportError(
            f"{program!r} exited, but its status is unknown: other code of this process waits for "
            "any child",
            started=True,
        )
    if code < 0 and launch.remote:
        return TransportError(
            f"the client of {program!r} was killed from outside by {signal_name(-code)}",
            started=None,
        )
    if code < 0:
        return ExitError(f"{program!r} was killed by {signal_name(-code)}")
    return ExitError(f"{program!r} exited with status {code}") if code else None


def with_reached(error: SpawnError | None, reached: str) -> SpawnError | None:
    """Return the error of a program that failed, with the limits that it reached."""
    if not reached or not isinstance(error, ExitError):
        return error
    told = ExitError(f"{error.message}; {reached}")
    told.stderr_tail = error.stderr_tail
    return told


def signal_name(number: int) -> str:
    """Return a signal's name and number."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
