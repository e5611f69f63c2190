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
    """A default that can be told from the same value given."""

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
    if not isinstance(sandbox, (ArgvSandbox, Sandbox)):  # the protocol takes long to ask
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
    """Run a program to its end, in a sandbox, and return how it came out.

    The call returns within ``timeout + grace + wait_delay`` and a bounded clean-up, whatever the
    program does. Cancel it at any moment: anyspawn kills the program first, then the cancellation
    goes on.

    Args:
        argv: The program and its arguments; the program is looked up on ``PATH`` where it has no
            slash. Never a str: no shell is involved. Or a whole `Command`, whose own fields then
            count.
        sandbox: Where it runs: a sandbox, or the name of a mode, such as ``"bubblewrap"``, with its
            defaults. Default: `Direct`, on this host, as this user.
        stdin: What the program reads on its standard input, followed by end of file. Default:
            nothing, that is an immediate end of file. ``None``: it shares the caller's own.
        env: Variables for the program: a mapping, or strings, ``KEY=value`` literal and bare
            ``KEY`` looked up on the host at call time (dropped where unset there).
        cwd: The program's working directory. Default: the caller's, or the sandbox's own.
        user: Who runs it: a name or a number, with or without a group (``nobody``, ``1000:1000``).
            A sandbox that cannot choose refuses it with a `ConfigError`. Default: the sandbox's.
        timeout: Seconds from the call to the end of the program, waiting for a free place included.
            Left out: the sandbox's ``default_timeout``, 10 s. ``None``: no limit.
        wait_delay: Seconds to wait, once the program has exited, for its output streams to be
            closed by whatever inherited them. Default 0.5.
        grace: Seconds between SIGTERM and SIGKILL when the work is ended early. Default 0: SIGKILL
            at once.
        output_limit: Bytes kept of each output stream. Default 16 MiB.
        overflow: What becomes of a stream's bytes beyond ``output_limit``. ``"error"`` (default):
            they kill the program, with `OutputLimitError`. With the others the program is not
            disturbed; kept are the first and last halves of the limit (``"truncate"``), the first
            bytes (``"head"``) or the last ones (``"tail"``), and `Completed.text` marks the place
            and says how many bytes were left out.
        merge_stderr: Have the program's standard error be its standard output: one stream, in the
            order in which the program wrote it. ``stderr`` is then empty, but for a runner's own
            words. Default: two streams.
        on_output: Called with the stream's name and each chunk, in order, as it is read; may be
            async, and is awaited before more is read. An exception in it ends the work and reaches
            the caller as it is.
        check: Raise the outcome's ``error`` instead of returning it.

    Returns:
        The outcome. A failure stands in its ``error``, unless ``check`` is set.

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
    """Start a program that is to stay, in a sandbox, and talk to it.

    Use it as ``async with anyspawn.open_process(...) as process``. However the block is left, by
    its end, an exception or a cancellation, anyspawn kills the program first, with all that it
    started; what `spawn` promises of clean-up holds.

    Args:
        argv: The program and its arguments, or a whole `Command` (then the command's own fields
            are given on it), of which ``stdin`` and the fields about output are `spawn`'s and are
            left out.
        sandbox: Where it runs: a sandbox, or the name of a mode. Default: `Direct`.
        env, cwd, user: As for `spawn`.
        timeout: Seconds that it has to start, waiting for a free place included; it then runs as
            long as the block. Left out: the sandbox's ``default_timeout``. ``None``: no limit.
        grace: Seconds between SIGTERM and SIGKILL where it still runs when the block is left.
            Default 0: SIGKILL at once.
        merge_stderr: Have ``stdout`` be both streams, in the order in which the program wrote them;
            there is nothing in ``stderr`` then. Default: two streams.
        tty: Give the program a terminal, 24 by 80 (`Process.resize`), for its three streams: it
            echoes, edits lines, and the byte 3 is Ctrl-C. ``stdin.aclose()`` types the byte 4, the
            end of input. It needs Linux or macOS, and ``python3`` in the sandbox. Default: pipes.

    Raises:
        TypeError, ValueError, ConfigError: An argument is wrong, or the sandbox cannot do this;
            nothing was started.
        NotStartedError, TransportError, SpawnTimeoutError: It did not start; the block is not
            entered.
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
                f"{name} of the Command is for spawn; the streams of an open process are yours"
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
            raise ConfigError("tty: this system has no terminals to give; leave it out")
        from anyspawn._terminal import open_terminal

        seconds = place._timeout_of(command) if isinstance(place, ArgvSandbox) else math.inf  # noqa: SLF001  it is one of us
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
    """Start a program that is to stay, as `open_process` does, where no block can hold it.

    It runs until ``await process.aclose()``, which any task of the same event loop may call, or
    until the event loop ends. Prefer `open_process` where there is a block: there nothing can be
    forgotten.

    Args:
        argv, sandbox, env, cwd, user, timeout, grace, merge_stderr, tty: As for `open_process`;
            ``grace`` counts at `Process.aclose`.

    Returns:
        The live process, which has started.

    Raises:
        TypeError, ValueError, ConfigError: As for `open_process`; nothing was started.
        NotStartedError, TransportError, SpawnTimeoutError: It did not start.
    """
    from anyspawn._spawn.held import Held

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
