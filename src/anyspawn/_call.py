"""`spawn` and `open_process`, the functions that most callers need."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from anyspawn._model import Command, Completed, Overflow, Sandbox, StrPath, Timeout
from anyspawn._sandbox import ArgvSandbox
from anyspawn.exceptions import ConfigError
from anyspawn.sandboxes.direct import Direct

if TYPE_CHECKING:
    from anyspawn._spawn.live import Process

__all__ = ["DIRECT", "open_process", "spawn", "start_process"]

DIRECT = Direct()
T = TypeVar("T")


class _LeftOut(Generic[T]):
    """A default that differs from the same value passed by a caller."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def _default(value: T) -> T:
    return cast("T", _LeftOut(value))


def _to_command(argv: Sequence[StrPath] | Command, fields: dict[str, Any]) -> Command:
    given = {name: value for name, value in fields.items() if not isinstance(value, _LeftOut)}
    if not isinstance(argv, Command):
        return Command(argv, **given)
    for name in given:
        raise TypeError(
            f"{name} was given beside a Command; set it on the Command (attrs.evolve makes a copy)"
        )
    return argv


def _to_sandbox(sandbox: Sandbox | str | None) -> Sandbox:
    if sandbox is None:
        return DIRECT
    if isinstance(sandbox, str):
        from anyspawn._registry import lookup_sandbox

        return lookup_sandbox(sandbox)(sandbox, {})
    if not isinstance(sandbox, (ArgvSandbox, Sandbox)):  # checking the protocol is slow
        raise TypeError(
            "sandbox must be a Sandbox, which has a name and an async spawn(command), or the name "
            f"of a mode, not {type(sandbox).__name__}"
        )
    return sandbox


async def spawn(
    argv: Sequence[StrPath] | Command,
    *,
    sandbox: Sandbox | str | None = None,
    stdin: bytes | bytearray | memoryview | None = _default(b""),
    env: Mapping[str, str] | Iterable[str] = _default(()),
    cwd: StrPath | None = _default(None),
    user: str | None = _default(None),
    timeout: Timeout = _default("default"),
    wait_delay: float = _default(0.5),
    grace: float = _default(0.0),
    output_limit: int = _default(16 * 2**20),
    overflow: Overflow = _default("error"),
    merge_stderr: bool = _default(False),
    on_output: (
        Callable[[Literal["stdout", "stderr"], bytes], Awaitable[None] | None] | None
    ) = _default(None),
    check: bool = False,
) -> Completed:
    """Run a program in a sandbox, wait for it, and return its outcome.

    The call returns within ``timeout + grace + wait_delay`` plus a bounded clean-up, whatever the
    program does. You can cancel it at any moment: anyspawn kills the program first, then the
    cancellation continues.

    Args:
        argv: The program and its arguments. A program without a slash is looked up on ``PATH``. It
            cannot be a str, because no shell is involved. It can be a `Command` instead, which then
            carries all settings but ``sandbox`` and ``check``.
        sandbox: Where it runs: a sandbox, or the name of a mode, such as ``"bubblewrap"``, with its
            defaults. Default: `Direct`, on this host, as this user.
        stdin: What the program reads on its standard input, followed by end of file. Default:
            empty, an immediate end of file. ``None``: the program shares the caller's standard
            input.
        env: Variables for the program: a mapping, or strings. ``KEY=value`` is literal; a bare
            ``KEY`` is looked up on the host at call time, and dropped if it is unset there.
        cwd: The program's working directory. Default: the caller's, or the sandbox's own.
        user: Who runs it: a name or a number, with or without a group (``nobody``, ``1000:1000``).
            A sandbox that cannot choose the user raises a `ConfigError`. Default: the sandbox's.
        timeout: Seconds from the call to the end of the program, including the wait for a slot.
            Left out: the sandbox's ``default_timeout``, 10 s unless it was changed. ``None``: no
            limit.
        wait_delay: Seconds to wait, once the program has exited, for its output streams to be
            closed by whatever inherited them. Default 0.5.
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
        check: Raise the outcome's ``error`` instead of returning it.

    Returns:
        The outcome. Unless ``check`` is set, a failure is in its ``error``.

    Raises:
        TypeError, ValueError, ConfigError: An argument is wrong; nothing was started.
        SpawnError: With ``check``, the failure.
    """
    fields = {
        "stdin": stdin,
        "env": env,
        "cwd": cwd,
        "user": user,
        "timeout": timeout,
        "wait_delay": wait_delay,
        "grace": grace,
        "output_limit": output_limit,
        "overflow": overflow,
        "merge_stderr": merge_stderr,
        "on_output": on_output,
    }
    command, place = _to_command(argv, fields), _to_sandbox(sandbox)
    completed = await place.spawn(command)
    if isinstance(sandbox, str) and isinstance(place, ArgvSandbox):
        await place.aclose()
    return completed.check() if check else completed


def open_process(
    argv: Sequence[StrPath] | Command,
    *,
    sandbox: Sandbox | str | None = None,
    env: Mapping[str, str] | Iterable[str] = _default(()),
    cwd: StrPath | None = _default(None),
    user: str | None = _default(None),
    timeout: Timeout = _default("default"),
    grace: float = _default(0.0),
    merge_stderr: bool = _default(False),
    tty: bool = False,
) -> AbstractAsyncContextManager[Process]:
    """Start a long-running program in a sandbox, and talk to it.

    Use it as ``async with anyspawn.open_process(...) as process``. When the block is left, by its
    end, an exception or a cancellation, anyspawn first kills the program and everything that it
    started. The clean-up is the same as for `spawn`.

    Args:
        argv: The program and its arguments, or a `Command`, which then carries all settings but
            ``sandbox`` and ``tty``. Its ``stdin`` and its fields about output are for `spawn`;
            leave them out.
        sandbox: Where it runs: a sandbox, or the name of a mode. Default: `Direct`.
        env, cwd, user: As for `spawn`.
        timeout: Seconds for the program to start, including the wait for a slot. It then runs as
            long as the block. Left out: the sandbox's ``default_timeout``. ``None``: no limit.
        grace: Seconds between SIGTERM and SIGKILL if the program still runs when the block is left.
            Default 0: SIGKILL at once.
        merge_stderr: Send both streams to ``stdout``, in the order in which the program wrote;
            ``stderr`` is then empty. Default: two streams.
        tty: Give the program a terminal, 24 by 80 (`Process.resize`), for its three streams: it
            echoes, edits lines, and the byte 3 is Ctrl-C. ``stdin.aclose()`` types the byte 4, the
            end of input. It needs Linux or macOS, and ``python3`` in the sandbox. Default: pipes.

    Raises:
        TypeError, ValueError, ConfigError: An argument is wrong, or the sandbox cannot do this;
            nothing was started.
        NotStartedError, TransportError, SpawnTimeoutError: The program did not start; the block is
            not entered.
    """
    fields = {
        "env": env,
        "cwd": cwd,
        "user": user,
        "timeout": timeout,
        "grace": grace,
        "merge_stderr": merge_stderr,
    }
    command = _to_command(argv, fields)
    plain = Command(command.argv)
    for name in ("stdin", "wait_delay", "output_limit", "overflow", "on_output"):
        if getattr(command, name) != getattr(plain, name):
            raise TypeError(
                f"{name} of the Command is for spawn; leave it out, because the caller of open_process "
                "handles the streams"
            )
    place = _to_sandbox(sandbox)
    opener = getattr(place, "open_process", None)
    if opener is None:
        raise TypeError(
            f"{type(place).__name__} can only run a program to its end; give it an async context "
            "manager open_process(command), which an ArgvSandbox inherits"
        )
    if tty:
        if os.name == "nt" and isinstance(place, Direct):
            raise ConfigError("tty: this system has no terminals; leave it out")
        from anyspawn._terminal import open_terminal

        seconds = place._timeout_of(command) if isinstance(place, ArgvSandbox) else math.inf  # noqa: SLF001  this package's own class
        return open_terminal(opener, command, here=isinstance(place, Direct), seconds=seconds)
    process: AbstractAsyncContextManager[Process] = opener(command)
    return process


async def start_process(
    argv: Sequence[StrPath] | Command,
    *,
    sandbox: Sandbox | str | None = None,
    env: Mapping[str, str] | Iterable[str] = _default(()),
    cwd: StrPath | None = _default(None),
    user: str | None = _default(None),
    timeout: Timeout = _default("default"),
    grace: float = _default(0.0),
    merge_stderr: bool = _default(False),
    tty: bool = False,
) -> Process:
    """Start a long-running program, like `open_process`, where no block can hold it.

    It runs until ``await process.aclose()``, which any task of the same event loop may call, or
    until the event loop ends. Prefer `open_process` if you can: its block always closes the
    process.

    Args:
        argv, sandbox, env, cwd, user, timeout, grace, merge_stderr, tty: As for `open_process`;
            ``grace`` applies to `Process.aclose`.

    Returns:
        The live process, which has started.

    Raises:
        TypeError, ValueError, ConfigError: As for `open_process`; nothing was started.
        NotStartedError, TransportError, SpawnTimeoutError: It did not start.
    """
    from anyspawn._held import Held

    opening = open_process(
        argv,
        sandbox=sandbox,
        env=env,
        cwd=cwd,
        user=user,
        timeout=timeout,
        grace=grace,
        merge_stderr=merge_stderr,
        tty=tty,
    )
    words = argv.argv if isinstance(argv, Command) else argv
    return await Held(opening, os.fspath(words[0])).start()
