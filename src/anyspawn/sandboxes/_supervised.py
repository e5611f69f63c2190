"""`SupervisedSandbox`: what the exec modes have in common, which run a command beside others in a
place that is there already.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
from attrs import Attribute, field, frozen

from anyspawn._model import Command, Completed, Launch
from anyspawn._telemetry import warn
from anyspawn.exceptions import ConfigError, NotStartedError, SpawnError, TransportError
from anyspawn.sandboxes._residents import CLIENT_ENV, ResidentSandbox
from anyspawn.supervisor import (
    Frames,
    head,
    reading_script,
    resident_script,
    script,
    script_line,
    tag_of,
    task,
)

if TYPE_CHECKING:
    from anyspawn._spawn.live import Process

__all__ = ["SupervisedSandbox", "explain_frames", "known_by", "not_started", "supervised"]

_SECRET = os.urandom(32)
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


def _nonce(command: Command) -> str:
    """Return what a command's frames begin with: the same for the same command, and not to be
    guessed from its id.
    """
    import hashlib

    return hashlib.blake2b(command.id.encode(), key=_SECRET, digest_size=16).hexdigest()


def supervised(
    command: Command, *, resident: int = 0, cwd: str | None = None, **fields: Any
) -> Launch:
    """Return the launch of a client at whose other end the supervisor waits for its task.

    Args:
        command: The command.
        resident: The supervisor is one that stays; else it is the command's own.
        cwd: Where it starts, if the client cannot say that.
        fields: The launch's other fields.
    """
    if command.stdin is None:
        raise ConfigError(
            "stdin=None, the caller's own stdin, needs supervisor='off': it is the supervisor's lifeline"
        )
    env = command.env.known()
    if resident:
        stdin = task(command.argv, env, command.stdin, cwd)
        return Launch(stdin=stdin, env=CLIENT_ENV, remote=True, **fields)
    nonce = _nonce(command)
    reads = reading_script() in fields["argv"][: -len(command.argv)]
    before = script_line() if reads else b""
    stdin = before + head(command.id, nonce, env, len(command.stdin), cwd) + command.stdin
    return Launch(stdin=stdin, nonce=nonce, remote=True, **fields)


def known_by(command: Command, *, resident: int) -> tuple[str, str]:
    """Return the arguments of `SWEEP`: the tag and the id of what the command starts.

    A resident's are placeholders, filled in when the command is its turn.
    """
    return ("?tag", "?id") if resident else (str(tag_of(command.id)), command.id)


def not_started(program: str, code: int) -> SpawnError:
    """Return why the container could not execute a program."""
    if code == _NOT_FOUND:
        return NotStartedError(
            f"program {program!r} was not found in the container; install it in its image"
        )
    return NotStartedError(
        f"program {program!r} cannot be executed in the container; see its permissions and format, "
        "or pass data on stdin where arguments and variables are too long"
    )


def explain_frames(
    completed: Completed,
    words: bytes,
    failure: Callable[..., SpawnError],
    cannot: Callable[[str, int], SpawnError] = not_started,
) -> SpawnError | None:
    """Tell the client's failures from the program's by what the supervisor said.

    Args:
        completed: The outcome.
        words: What the supervisor said, one a line.
        failure: Makes an error of the client's own words.
        cannot: Makes one of a program that cannot be executed, and the status that says so.
    """
    program = next(
        after
        for arg, after in zip(completed.argv, completed.argv[2:], strict=False)
        if arg in {script(), reading_script(), resident_script()}
    )
    frames = Frames("")
    frames.words = words.decode().splitlines()
    if "nocwd" in frames.words:
        return NotStartedError(
            f"program {program!r} was not started: its cwd is no directory in the container"
        )
    if frames.unstarted in (_NOT_EXECUTABLE, _NOT_FOUND):
        return cannot(program, frames.unstarted)
    if frames.exit_status is not None:
        if not frames.started:
            what = (
                f"the container's shell could not start {program!r}: its variables may be too long (pass data on stdin), "
                "or be among those that the shell keeps for itself, such as UID"
            )
            return NotStartedError(what)
        if frames.lost:
            return TransportError(
                f"the stdin of {program!r} did not arrive whole: its reader in the container was ended",
                started=True,
            )
        if not frames.whole and not completed.output_incomplete:
            return TransportError(
                f"the connection was lost: the end of the output of {program!r} is missing",
                started=True,
            )
        return None
    stderr = completed.stderr.decode(errors="replace")
    if frames.begun:
        return TransportError(
            f"the connection was lost while {program!r} ran: {failure(stderr, completed.returncode, started=True)}",
            started=True,
        )
    return failure(stderr, completed.returncode, started=None if frames.ready else False)


def _mode(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in ("auto", "required", "off"):
        raise ConfigError(f"supervisor must be 'auto', 'required' or 'off', not {value!r}")


def _shared(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in ("untrusted", "trusted"):
        raise ConfigError(f"shared must be 'untrusted' or 'trusted', not {value!r}")


@frozen(kw_only=True)
class SupervisedSandbox(ResidentSandbox):
    """The base of the exec modes: with a supervisor, or without where there is no sh for it.

    Args:
        supervisor: ``auto`` (default): without where the container has no sh, which is logged, and
            where clean-up then cannot be confirmed; ``required``: such a container is an error;
            ``off``: never.
        shared: Who else runs programs there as the same user. ``untrusted`` (default): anyone, who
            can forge an outcome; the log says so once, and hooks that filter refuse the sandbox.
            ``trusted``: nobody who would.
    """

    supervisor: Literal["auto", "required", "off"] = field(default="auto", validator=_mode)
    shared: Literal["untrusted", "trusted"] = field(default="untrusted", validator=_shared)
    _warned: list[bool] = field(init=False, factory=list, repr=False, eq=False)
    _without_sh: list[bool] = field(init=False, factory=list, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.resident and self.supervisor == "off":
            raise ConfigError(
                "resident: what stays is a supervisor; leave supervisor at 'auto' or 'required'"
            )

    @property
    @abstractmethod
    def _place(self) -> str:
        """What to call the place that commands run in."""

    def _plain_outcome(self, completed: Completed) -> Completed:
        """Return an outcome without the supervisor, less what the client added to the program's
        output.
        """
        return completed

    async def attempt(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> Completed:
        """See ``launch`` through; without the supervisor where the container has no sh."""
        self._warn_once()
        if self.supervisor == "off":
            return self._plain_outcome(
                await super().attempt(launch, command, began=began, timeout=timeout)
            )
        if not self._without_sh:
            if self.resident:
                completed = await self.serve(launch, command, began=began, timeout=timeout)
            else:
                completed = await super().attempt(launch, command, began=began, timeout=timeout)
            if not _no_sh(completed):
                return completed
            if self.supervisor == "required":
                message = f"{self._place} has no sh, which supervisor='required' needs"
                return attrs.evolve(completed, error=TransportError(message, started=False))
        try:
            instead = self._instead(command)
        except TransportError as exc:
            return Completed(argv=launch.argv, error=exc)
        return await self._plain().attempt(instead, command, began=began, timeout=timeout)

    @asynccontextmanager
    async def opening(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> AsyncIterator[Process]:
        """Start ``launch``; without the supervisor where the container has no sh."""
        self._warn_once()
        when = {"began": began, "timeout": timeout}
        async with AsyncExitStack() as stack:
            process: Process | None = None
            if self.supervisor == "off" or not self._without_sh:
                try:
                    process = await stack.enter_async_context(
                        super().opening(launch, command, **when)
                    )
                except TransportError as exc:
                    if (
                        self.supervisor == "off"
                        or exc.completed is None
                        or not _no_sh(exc.completed)
                    ):
                        raise
                    if self.supervisor == "required":
                        message = f"{self._place} has no sh, which supervisor='required' needs"
                        raise TransportError(message, started=False) from None
            if process is None:
                instead = self._instead(command)
                process = await stack.enter_async_context(
                    self._plain().opening(instead, command, **when)
                )
            yield process

    def share_with(self, other: ResidentSandbox) -> None:
        """Have ``other``, a copy of this sandbox for one call, use the same supervisors."""
        super().share_with(other)
        object.__setattr__(other, "_warned", self._warned)

    def _warn_once(self) -> None:
        if self.shared == "untrusted" and not self._warned:
            self._warned.append(True)
            warn(
                "anyspawn.supervisor",
                "%s may run other programs as the same user, which can forge the outcome of a call; "
                "set shared='trusted' if none of them would",
                self._place,
            )

    def _plain(self) -> Self:
        return self._changed(supervisor="off", resident=0)

    def _instead(self, command: Command) -> Launch:
        """Return how to launch without a supervisor, as there is no sh.

        Raises:
            TransportError: The command cannot be had that way.
        """
        try:
            instead = self._plain().launch(command)
        except ConfigError as exc:
            raise TransportError(
                f"{self._place} has no sh, and so no supervisor: {exc}", started=False
            ) from None
        if not self._without_sh:
            self._without_sh.append(True)
            warn(
                "anyspawn.supervisor",
                "%s has no sh: its commands run without a supervisor",
                self._place,
            )
        return instead


def _no_sh(completed: Completed) -> bool:
    error, said = completed.error, completed.stderr
    if not isinstance(error, TransportError) or error.started is not False:
        return False  # what says so on stderr then is the program
    return b'exec: "sh":' in said or b"executable file `sh` not found" in said
