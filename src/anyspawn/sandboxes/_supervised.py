"""`SupervisedSandbox`: the base of the exec modes, which run commands in a container or a pod that
runs already.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
from attrs import Attribute, field, frozen

from anyspawn._model import Command, Completed, Fill, Launch, Task
from anyspawn._telemetry import warn
from anyspawn.argv._text import is_text
from anyspawn.exceptions import ConfigError, NotStartedError, SpawnError, TransportError
from anyspawn.sandboxes._residents import MOST_BY_ITSELF, ResidentSandbox
from anyspawn.supervisor import Report
from anyspawn.supervisor.encode import check_name, tag_of

if TYPE_CHECKING:
    from anyspawn._spawn.resident import Pool

__all__ = [
    "SupervisedSandbox",
    "clock",
    "explain_report",
    "known_by",
    "no_cwd",
    "not_started",
    "supervised",
]

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


def clock() -> float:
    """Return the seconds of a clock that nobody sets, and that continues while the host is
    suspended.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def supervised(
    command: Command,
    *,
    explain: Callable[[Completed, Report], SpawnError | None],
    cwd: str | None = None,
    before: bytes = b"",
    stays: bool = False,
    without: str = "supervisor='off'",
    **fields: Any,
) -> Launch:
    """Return the launch of a client that runs a supervisor in the container.

    Args:
        command: The command.
        explain: Reads the supervisor's report.
        cwd: Where the command starts, if the client has no option for it.
        before: Script that the supervisor's shell reads before the task.
        stays: The client starts a resident.
        without: Advice for doing without a supervisor.
        fields: The launch's other fields.
    """
    instead = f", or {'leave out resident' if without == 'resident=0' else without}"
    if command.stdin is None:
        raise ConfigError(
            f"stdin=None, the caller's own stdin, needs {without}: the supervisor reads that stream"
        )
    env = command.env.known()
    for name in env:
        check_name(name, instead)
    task = Task(env=env, cwd=cwd, stdin=command.stdin, before=before, explain=explain, stays=stays)
    return Launch(task=task, **fields)


def known_by(command: Command, *, stays: bool) -> tuple[str, str]:
    """Return the arguments of `SWEEP`: the tag and the id that mark the command's processes.

    For a resident they are placeholders, filled in when it starts.
    """
    if stays:
        return Fill("?", "tag"), Fill("?", "id")
    return str(tag_of(command.id)), command.id


def not_started(program: str, code: int) -> SpawnError:
    """Return the error for a program that the container could not execute."""
    if code == _NOT_FOUND:
        return NotStartedError(
            f"program {program!r} was not found in the container; install it in its image",
            kind="not_found",
        )
    return NotStartedError(
        f"program {program!r} cannot be executed in the container; see its permissions and format, "
        "or pass data on stdin where arguments and variables are too long",
        kind="not_executable",
    )


def no_cwd(program: str) -> SpawnError:
    """Return the error for a missing working directory."""
    return NotStartedError(
        f"{program!r} was not started: its cwd is not a directory in the container; create it "
        "or give another cwd",
        kind="cwd",
    )


def explain_report(
    completed: Completed,
    report: Report,
    failure: Callable[..., SpawnError],
    cannot: Callable[[str, int], SpawnError] = not_started,
) -> SpawnError | None:
    """Return the client's failure, if it is one, by the supervisor's report.

    Args:
        completed: The outcome.
        report: The supervisor's report.
        failure: Makes an error of the client's stderr.
        cannot: Makes an error of a program that cannot be executed, and its status.
    """
    program = completed.argv[0]
    if report.nocwd:
        return no_cwd(program)
    if report.unstarted in (_NOT_EXECUTABLE, _NOT_FOUND):
        return cannot(program, report.unstarted)
    if report.exit_status is not None:
        if not report.started:
            return NotStartedError(
                f"the container's shell could not start {program!r}: there may be no process left for "
                "it (see the container's limits), its variables may be too long (pass data on stdin), "
                "or be among those that the shell keeps for itself, such as UID",
                kind="other",
            )
        if report.stdin_lost:
            return TransportError(
                f"the stdin of {program!r} did not arrive whole: what hands it over in the "
                "container could not be started, or was killed",
                started=True,
                kind="connection",
            )
        if not report.whole and not completed.output_incomplete:
            if report.failed:
                return _could_not_go_on(program)
            return TransportError(
                f"the connection was lost: the end of the output of {program!r} is missing",
                started=True,
                kind="connection",
            )
        return None
    stderr = completed.stderr_text
    if report.failed:
        return _could_not_go_on(program)
    if report.begun:
        why = failure(stderr, completed.returncode, started=True)
        return TransportError(
            f"the connection was lost while {program!r} ran: {why}",
            started=True,
            kind="connection",
        )
    return failure(stderr, completed.returncode, started=None if report.ready else False)


def _could_not_go_on(program: str) -> SpawnError:
    return TransportError(
        f"the supervisor of {program!r} could not go on: the container, or its user, may be at a "
        "limit of processes, memory or open files",
        started=None,
        kind="connection",
    )


def _mode(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in ("auto", "required", "off"):
        raise ConfigError(f"supervisor must be 'auto', 'required' or 'off', not {value!r}")


def _resident(_: object, __: Attribute[Any], value: Any) -> None:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigError(f"resident must be 'auto', or an int of 0 (none) or more, not {value!r}")


def _shared(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in ("untrusted", "trusted"):
        raise ConfigError(f"shared must be 'untrusted' or 'trusted', not {value!r}")


@frozen(kw_only=True)
class SupervisedSandbox(ResidentSandbox):
    """The base of the exec modes: with a supervisor, or without if there is no sh.

    Args:
        supervisor: ``auto`` (default): use it if the container has a sh; if not, log that, and
            clean-up cannot be confirmed. ``required``: a container without sh is an error. ``off``:
            never use it.
        resident: How many supervisors stay. ``auto`` (default): a sandbox that is called again
            within ``idle_timeout`` keeps one for each call that ran at once, up to 8; each call
            beyond that starts its own.
        shared: Whether you trust the other programs that run there as the same user. ``untrusted``
            (default): a hostile one can forge an outcome. The log says so once, and hooks that
            filter refuse the sandbox. ``trusted``: you trust all of them.
    """

    resident: int | Literal["auto"] = field(default="auto", validator=_resident)
    supervisor: Literal["auto", "required", "off"] = field(default="auto", validator=_mode)
    shared: Literal["untrusted", "trusted"] = field(default="untrusted", validator=_shared)
    _warned: list[bool] = field(init=False, factory=list, repr=False, eq=False)
    _without_sh: list[bool] = field(init=False, factory=list, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.resident not in (0, "auto") and self.supervisor == "off":
            raise ConfigError(
                "resident: what stays is a supervisor; leave supervisor at 'auto' or 'required'"
            )

    @property
    def _may_keep(self) -> bool:
        """Whether ``auto`` can keep supervisors here."""
        return True

    @property
    @abstractmethod
    def _target(self) -> str:
        """The name of the container or pod in messages."""

    async def plain_outcome(self, completed: Completed, began: float) -> Completed:
        """Return the outcome of a call without supervisor, with the right error and without the
        client's own text in the program's output.

        Args:
            completed: The outcome.
            began: When the call began, on `clock`.
        """
        return completed

    async def judged(self, completed: Completed) -> Completed:
        """Return the outcome with the right error, if that needs a question to a daemon or an
        API.
        """
        return completed

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Give the launch; without the supervisor if the container has no sh."""
        self._warn_once()
        began = clock()
        if self.supervisor != "off":
            if self._without_sh:
                launch, sandbox = self._launch_plain(command), self._plain()
                yield attrs.evolve(launch, examine=partial(sandbox.examine, self, command, began))
                return
            if self.resident == "auto" and self._may_keep:
                launch = self._changed(resident=MOST_BY_ITSELF).launch(command)
                pool = self._pool(launch)
                text = is_text(command.argv)
                with pool.visited() as wanted:
                    if not text:  # which only residents can pass on
                        examine = partial(self.examine, self, command, began)
                    elif wanted:
                        examine = partial(self._or_alone, pool, command, began)
                    else:
                        launch = self.alone().launch(command)
                        examine = partial(self.examine, self, command, began)
                    yield attrs.evolve(launch, examine=examine)
                return
        yield attrs.evolve(
            self.launch(command), examine=partial(self.examine, self, command, began)
        )

    async def _or_alone(
        self, pool: Pool, command: Command, began: float, completed: Completed
    ) -> Completed | None:
        """Return the outcome of a resident's call, or ``None`` if nothing started and the call gets
        its own supervisor.
        """
        if isinstance(completed.error, TransportError) and completed.error.started is False:
            pool.pause()
            return None
        return await self.examine(self, command, began, completed)

    def _launch_plain(self, command: Command) -> Launch:
        """Return the launch without a supervisor.

        Raises:
            TransportError: The command cannot run without one.
        """
        try:
            return self._plain().launch(command)
        except ConfigError as exc:
            message = f"{self._target} has no sh, and so no supervisor: {exc}"
            raise TransportError(message, started=False, kind="shell") from None

    async def examine(
        self, asked: SupervisedSandbox, command: Command, began: float, completed: Completed
    ) -> Completed | None:
        """Return the outcome with the right error; ``None`` to try again without a supervisor."""
        if self.supervisor == "off":
            return await self.plain_outcome(completed, began)
        if not _no_sh(completed):
            return await self.judged(completed)
        what = f"{self._target} has no sh"
        error = TransportError(
            f"{what}, which supervisor='required' needs", started=False, kind="shell"
        )
        if self.supervisor == "auto":
            try:
                self._launch_plain(command)
            except TransportError as exc:
                error = exc
            else:
                if not asked._without_sh:
                    asked._without_sh.append(True)
                    warn("anyspawn.supervisor", "%s: its commands run without a supervisor", what)
                return None
        return attrs.evolve(completed, error=error)

    def _warn_once(self) -> None:
        if self.shared == "untrusted" and not self._warned:
            self._warned.append(True)
            warn(
                "anyspawn.supervisor",
                "%s may run other programs as the same user, which can forge the outcome of a call; "
                "set shared='trusted' if none of them would",
                self._target,
            )

    def _plain(self) -> Self:
        return self._changed(supervisor="off", resident=0)


def _no_sh(completed: Completed) -> bool:
    error, said = completed.error, completed.stderr
    if not isinstance(error, TransportError) or error.started is not False:
        return False  # the message on stderr is the program's
    return b'exec: "sh":' in said or b"executable file `sh` not found" in said
