"""The values: a command, the local process that a sandbox makes of it, and its outcome. Pure: no
clock, environment, disk or loop.

Rules that hold throughout: every value is frozen and checked when it is made, so that a wrong
argument is an error before anything starts; a ``repr`` never shows a variable's value or a byte of
stdin.
"""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from attrs import Attribute, evolve, field, frozen

from anyspawn._env import Env, check_text
from anyspawn._limits import Limits
from anyspawn.exceptions import SpawnError
from anyspawn.supervisor.protocol import Report

__all__ = [
    "Cleanup",
    "Command",
    "Completed",
    "EgressCounts",
    "FdArg",
    "Fill",
    "Launch",
    "LeavingCommand",
    "Overflow",
    "Sandbox",
    "StreamName",
    "Task",
    "Timeout",
]

StreamName = Literal["stdout", "stderr"]
OnOutput = Callable[[StreamName, bytes], "Awaitable[None] | None"]
Overflow = Literal["error", "truncate", "head", "tail"]
Timeout = float | None | Literal["default"]
_SHOWN = 60
StrPath = str | os.PathLike[str]


def _to_argv(value: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(
            f"argv must be a sequence of str such as ['ls', '-l'], not {type(value).__name__}; no shell is ever started"
        )
    # The str first: an isinstance check against an ABC is much slower.
    argv = tuple(
        [
            item if isinstance(item, str) or not isinstance(item, os.PathLike) else os.fspath(item)
            for item in value
        ]
    )
    try:
        check_text("".join(argv), "argv")  # one check for all items; on an error, find the item
    except (TypeError, ValueError):
        for index, item in enumerate(argv):
            check_text(item, f"argv[{index}]")
        raise
    if not argv or not argv[0]:
        raise ValueError("argv is empty; its first item must name the program to run")
    return argv


def _to_stdin(value: bytes | bytearray | memoryview | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"stdin must be bytes or None, not {type(value).__name__}; encode text first")


def _to_path(value: str | os.PathLike[str] | None) -> str | None:
    if value is None:
        return None
    path = check_text(os.fspath(value) if isinstance(value, os.PathLike) else value, "cwd")
    if not path:
        raise ValueError("cwd is empty; leave it None for the caller's own working directory")
    return path


def _to_user(value: str | None) -> str | None:
    if value is None:
        return None
    user = check_text(value, "user")
    if not re.fullmatch("[^-:][^:]*(:[^:]+)?", user):
        raise ValueError(
            f"user must be a name or a number, with or without a group, such as nobody or "
            f"1000:1000, not {user!r}"
        )
    return user


def _to_env(value: Mapping[str, str | None] | Iterable[str]) -> Env:
    return value if isinstance(value, Env) else Env(value)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large a number of seconds; None means no limit") from None
    if math.isnan(seconds):
        raise ValueError(f"{name} is NaN; it must be a number of seconds")
    return seconds


def _to_timeout(value: Timeout) -> Timeout:
    if value is None or value == "default":
        return value
    seconds = _number(value, "timeout")
    if seconds <= 0:
        raise ValueError(
            f"timeout must be more than 0 seconds, not {value}; None means no limit, and left out "
            "the sandbox's default_timeout"
        )
    return seconds


def _seconds(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not 0 <= _number(value, attribute.name) < math.inf:
        raise ValueError(
            f"{attribute.name} must be a finite number of seconds, 0 or more, not {value}"
        )


def _limit(_: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} must be an int (bytes), not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more bytes, not {value}")


def _overflow(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in get_args(Overflow):
        raise ValueError(f"overflow must be 'error', 'truncate', 'head' or 'tail', not {value!r}")


def _flag(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {value!r}")


def _callback(_: object, __: Attribute[Any], value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(
            f"on_output must be callable with (stream, chunk), not {type(value).__name__}"
        )


def _hex(_: object, __: Attribute[Any], value: Any) -> None:
    if not re.fullmatch("[0-9a-f]{8,64}", check_text(value, "id")):
        raise ValueError(f"id must be 8 to 64 lower-case hexadecimal digits, not {value!r}")


def _size(value: bytes | None) -> str:
    return "None" if value is None else f"<{len(value)} bytes>"


def _beginning(value: bytes) -> str:
    return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... <{len(value)} bytes>"


@frozen
class Command:
    """What to run.

    Args:
        argv: The program and its arguments. A program without a slash is looked up on ``PATH``. It
            cannot be a str, because no shell is involved.
        stdin: What the program reads on its standard input, followed by end of file. Default:
            empty, an immediate end of file. ``None``: the program shares the caller's standard
            input.
        env: Variables for the program: a mapping, or strings. ``KEY=value`` is literal; a bare
            ``KEY`` is looked up on the host at call time, and dropped if it is unset there.
        cwd: The program's working directory. Default: the caller's.
        user: Who runs it: a name or a number, with or without a group (``nobody``, ``1000:1000``).
            A sandbox that cannot choose the user raises a `ConfigError`. Default: the sandbox's.
        timeout: Seconds from the call to the end of the program, including the wait for a slot.
            Left out: the sandbox's ``default_timeout``. ``None``: no limit.
        wait_delay: Seconds to wait, once the program has exited, for its output streams to be
            closed by whatever inherited them. Default 0.5. As ``exec.Cmd.WaitDelay`` in Go.
        grace: Seconds between SIGTERM and SIGKILL when anyspawn stops the program. Default 0:
            SIGKILL at once.
        output_limit: Bytes kept of each output stream. Default 16 MiB.
        overflow: What happens when a stream exceeds ``output_limit``. ``"error"`` (default):
            anyspawn kills the program, and the error is an `OutputLimitError`. Otherwise the
            program runs on, and anyspawn keeps half of the limit from the beginning and half from
            the end (``"truncate"``), the first bytes (``"head"``) or the last bytes (``"tail"``).
            `Completed.text` marks the place and says how many bytes were left out.
        merge_stderr: Send the program's standard error to its standard output: one stream, in the
            order in which the program wrote. ``stderr`` then holds only the messages of a runner.
            Default: two streams.
        on_output: Called with the stream's name and each chunk, in order, as it is read. It can be
            async; it is awaited before more is read. If it raises, anyspawn kills the program and
            the exception reaches the caller unchanged.
        id: Names this call in labels, marks and logs. Default: unique hexadecimal digits.

    Raises:
        TypeError, ValueError: An argument is wrong; the message names it.
    """

    argv: tuple[str, ...] = field(converter=_to_argv)
    stdin: bytes | None = field(default=b"", kw_only=True, converter=_to_stdin, repr=_size)
    env: Env = field(default=Env(), kw_only=True, converter=_to_env)
    cwd: str | None = field(default=None, kw_only=True, converter=_to_path)
    user: str | None = field(default=None, kw_only=True, converter=_to_user)
    timeout: Timeout = field(default="default", kw_only=True, converter=_to_timeout)
    wait_delay: float = field(default=0.5, kw_only=True, validator=_seconds)
    grace: float = field(default=0.0, kw_only=True, validator=_seconds)
    output_limit: int = field(default=16 * 2**20, kw_only=True, validator=_limit)
    overflow: Overflow = field(default="error", kw_only=True, validator=_overflow)
    merge_stderr: bool = field(default=False, kw_only=True, validator=_flag)
    on_output: OnOutput | None = field(default=None, kw_only=True, validator=_callback)
    id: str = field(factory=lambda: os.urandom(16).hex(), kw_only=True, validator=_hex)


@frozen(kw_only=True)
class LeavingCommand(Command):
    """A command of a box; the processes that it leaves running stay in the box.

    Args:
        keep: Takes over the processes that run on; returns whether the box is still open.
    """

    keep: Callable[[Any], bool] = field(repr=False, eq=False)


class Cleanup(enum.Enum):
    """The result of the clean-up, when the call returns."""

    NOT_NEEDED = "not needed"
    """The program exited by itself, and anyspawn killed nothing. `Bubblewrap` without residents and
    `DockerRun` end with their program, so anyspawn does not look for processes that it left.
    """
    CONFIRMED = "confirmed"
    """anyspawn killed something, and saw that it is gone."""
    LEFT = "left"
    """The program exited by itself, and the processes that it left run on in its box
    (``leave="detached"``).
    """
    UNCONFIRMED = "unconfirmed"
    """anyspawn tried to kill something, and could not see in time that it is gone."""


@frozen(kw_only=True)
class EgressCounts:
    """How many connections a program asked its proxy for (`Egress`).

    Args:
        allowed: Those that were made.
        denied: Those that the rules do not allow.
        failed: Those that are allowed and could not be made.
    """

    allowed: int = 0
    denied: int = 0
    failed: int = 0


@frozen(kw_only=True)
class Completed:
    """The outcome of a call.

    Args:
        argv: The command, as the caller gave it.
        runner_argv: The argv that ran on this host. It holds no variable's value and nothing of
            stdin.
        returncode: The program's exit status; ``-N`` for signal N if the sandbox can tell.
            ``None``: the program never ran, or its status is unknown.
        stdout: The program's standard output, as far as it was read, also if the call failed.
        stderr: The same for standard error.
        stdout_total: Bytes read from standard output; more than ``len(stdout)`` if output was
            truncated.
        stderr_total: The same for standard error.
        overflow: The command's ``overflow``: which part of a stream was kept.
        output_incomplete: A descendant still held a stream when ``wait_delay`` ran out.
        duration: Seconds that the call took, including the wait for a slot.
        waited: Seconds that the call waited for a slot (``max_concurrent``).
        error: What went wrong, or ``None``.
        cleanup: The result of the clean-up.
        egress: The connections that the program asked for, if the network is an `Egress`.
    """

    argv: tuple[str, ...]
    runner_argv: tuple[str, ...] = field(default=(), repr=False)
    returncode: int | None = None
    stdout: bytes = field(default=b"", repr=_beginning)
    stderr: bytes = field(default=b"", repr=_beginning)
    stdout_total: int = field(default=0)
    stderr_total: int = field(default=0)
    overflow: Overflow = "error"
    output_incomplete: bool = False
    duration: float = 0.0
    waited: float = 0.0
    error: SpawnError | None = field(default=None, eq=False)
    cleanup: Cleanup = Cleanup.NOT_NEEDED
    egress: EgressCounts | None = None

    def __attrs_post_init__(self) -> None:
        if self.error is not None:
            self.error.completed = self

    @property
    def ok(self) -> bool:
        """Whether the call succeeded: ``error`` is ``None``."""
        return self.error is None

    @property
    def text(self) -> str:
        """The program's standard output as text; invalid UTF-8 becomes U+FFFD. If ``overflow`` left
        bytes out, a line such as ``[... 2048 bytes left out ...]`` replaces them.
        """
        return _marked(self.stdout, self.stdout_total, self.overflow)

    @property
    def stderr_text(self) -> str:
        """The program's standard error as text, like ``text``."""
        return _marked(self.stderr, self.stderr_total, self.overflow)

    def check(self) -> Completed:
        """Return self, or raise ``error`` if there is one."""
        if self.error is not None:
            raise self.error
        return self


def _marked(kept: bytes, total: int, overflow: Overflow) -> str:
    """Return output as text, with a mark where ``overflow`` left bytes out."""
    left_out = total - len(kept)
    if overflow == "error" or left_out <= 0:
        return kept.decode(errors="replace")
    place = {"tail": 0, "truncate": len(kept) - len(kept) // 2}.get(overflow, len(kept))
    before, after = (part.decode(errors="replace") for part in (kept[:place], kept[place:]))
    line = f"[... {left_out} bytes left out ...]\n"
    return before + ("\n" if before and not before.endswith("\n") else "") + line + after


@frozen(kw_only=True)
class FdArg:
    """An argument that is the number of an open file descriptor, known only when the runner starts.

    Args:
        index: The position in ``Launch.argv`` of the number; the item there is a placeholder.
        data: What the runner reads from the descriptor, for values that must not appear in an argv.
            ``None``: the runner writes to it, and ``Launch.explain`` gets these bytes.
        prefix: Text before the number. Default: empty.
        fd: A descriptor that is already open, instead of a new one; its owner closes it.
        gate: The runner waits for ``data``, which anyspawn writes as soon as ``Launch.limits``
            apply to the process that leads the work.
    """

    index: int
    data: bytes | None = field(default=None, repr=_size)
    prefix: str = ""
    fd: int | None = None
    gate: bool = False


class Fill(str):
    """An argument with a part, the ``?``, that is known only when the process starts.

    anyspawn recognises it by its type: a user's argument with the same text stays unchanged.

    Args:
        text: The argument.
        what: The name of the value that replaces the ``?``.
    """

    __slots__ = ("what",)
    what: str

    def __new__(cls, text: str, what: str) -> Self:
        self = super().__new__(cls, text)
        self.what = what
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Fill, (str(self), self.what)


def _fill(argv: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        arg.replace("?", values[arg.what]) if isinstance(arg, Fill) and arg.what in values else arg
        for arg in argv
    )


@frozen(kw_only=True)
class Task:
    """The command for a supervisor that the local process is connected to.

    Args:
        env: The command's variables.
        cwd: Where it starts. Default: where the supervisor does.
        stdin: What it reads.
        before: What the supervisor's shell reads before all of that.
        explain: Reads the supervisor's report, and returns the error that it means, or ``None`` if
            the program ran and the status is its own.
        stays: The supervisor may serve other commands as well, one after the other.
    """

    env: Mapping[str, str] = field(repr=False)
    cwd: str | None = None
    stdin: bytes = field(repr=_size)
    before: bytes = field(default=b"", repr=_size)
    explain: Callable[[Completed, Report], SpawnError | None]
    stays: bool = False


@frozen(kw_only=True)
class Launch:
    """The local process that a sandbox makes of a command: pure data.

    Args:
        argv: The local program and its arguments.
        env: Variables for the local process.
        inherit_env: Merge ``env`` over the host's variables (default), or pass ``env`` alone.
        cwd: The local working directory. Default: the caller's.
        user: The numbers of the local process's user and group; it has no other groups. Only root
            can choose. Default: the caller's.
        stdin: What the local process reads; ``None`` shares the caller's standard input.
        task: For a supervisor that the local process is connected to, which reads this instead of
            ``stdin``. anyspawn takes its reports out of the output, and keeps its stdin open until
            the work is over; closing it earlier tells the supervisor to kill the work.
        fd_args: Arguments that are file descriptors.
        mark: Set the variable ``ANYSPAWN_ID`` (default), by which anyspawn finds and kills
            descendants that left the process group.
        dies_with_parent: The local process asks the kernel to be killed with the thread that starts
            it.
        runner: The name of the runner, if the local program is not the command itself. If it cannot
            start, the error is a `TransportError` that says ``install``.
        install: Advice for a missing runner.
        leader: Reads the pid of the runner's child that leads the work, from the bytes that the
            runner wrote to its status descriptor so far. SIGTERM goes to that child's group, and
            the call also waits for it to exit.
        limits: Limits for the process that leads the work and everything that it starts. If that is
            the local process itself, its first moments are not bounded.
        explain: Recognises the runner's own failures: takes the outcome and the bytes that the
            runner wrote to its status descriptor, and returns the error that they mean, or ``None``
            if the outcome is the program's.
        examine: Finds out what an outcome means, by asking a daemon for example. Returns it with
            the right error, or ``None`` if the command did not start and another attempt can
            succeed.
        remote: The work is not a descendant of the local process, and does not end with it. Without
            a ``task``, the argv must then implement ``Command.merge_stderr``; otherwise anyspawn
            does.
        stop: A local argv that sends SIGTERM to the remote work. Its last item ends in TERM, which
            anyspawn replaces to send another signal.
        running: A local argv that prints something as soon as the remote work runs. Used for live
            processes only.
        end: A local argv that kills the remote work if there is any. It succeeds and prints
            something if there was. Otherwise the work that a killed client asked for can still
            start, and the clean-up cannot be confirmed.
        gone: A local argv that lists what is left of the remote work. Nothing is left if it prints
            nothing and succeeds.
        gone_words: Texts, one of which ``gone`` writes to stderr if it fails because the container
            or pod itself is gone.
        changes: A local argv that prints, until it is killed, a line of JSON for each start of a
            command in a container and for each change of a container, like ``docker events``. A
            resident serves another command only if no line names its container.
        guard: A local argv that runs during the call. Its stdin is closed when this process is
            gone; it then kills the work.
    """

    argv: tuple[str, ...] = field(converter=_to_argv)
    env: Env = field(default=Env(), converter=_to_env)
    inherit_env: bool = True
    cwd: str | None = field(default=None, converter=_to_path)
    user: tuple[int, int] | None = None
    stdin: bytes | None = field(default=b"", converter=_to_stdin, repr=_size)
    task: Task | None = None
    fd_args: tuple[FdArg, ...] = ()
    mark: bool = True
    dies_with_parent: bool = False
    runner: str | None = None
    install: str = ""
    leader: Callable[[bytes], int | None] | None = None
    limits: Limits | None = None
    explain: Callable[[Completed, bytes], SpawnError | None] | None = None
    examine: Callable[[Completed], Awaitable[Completed | None]] | None = None
    remote: bool = False
    stop: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    gone_words: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()

    def filled(self, **values: str) -> Launch:
        """Return the launch with each `Fill` replaced by its value."""
        return evolve(
            self,
            argv=_fill(self.argv, values),
            stop=_fill(self.stop, values),
            running=_fill(self.running, values),
            end=_fill(self.end, values),
            gone=_fill(self.gone, values),
            guard=_fill(self.guard, values),
        )


@runtime_checkable
class Sandbox(Protocol):
    """Where commands run. To write one, subclass `ArgvSandbox`.

    It raises a `ConfigError` for a command that asks for something that it cannot do, such as run
    as another user.

    A sandbox may also have ``async def aclose(self) -> None``.
    """

    @property
    def name(self) -> str:
        """The sandbox's name in messages and configuration."""

    async def spawn(self, command: Command) -> Completed:
        """Run ``command`` to its end. Failures are in ``Completed.error``; only cancellation and
        bad arguments raise.
        """
