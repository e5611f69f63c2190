"""`open`, for programs that stay and are talked to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import attrs

from anyspawn._call import DIRECT
from anyspawn._model import Command, Sandbox

if TYPE_CHECKING:
    from anyspawn._spawn.live import Process

__all__ = ["open"]

_OF_SPAWN = ("stdin", "wait_delay", "output_limit", "overflow", "on_output")


def open(  # noqa: A001  it stands beside spawn, as os.open does beside os.spawnv
    argv: Sequence[str] | Command,
    *,
    sandbox: Sandbox | None = None,
    env: Mapping[str, str] | Iterable[str] = (),
    cwd: str | None = None,
    timeout: float | None = None,
    grace: float = 0.0,
) -> AbstractAsyncContextManager[Process]:
    """Start a program that is to stay, in a sandbox, and talk to it: an async context manager that
    gives a `Process`.

    However the block is left, by its end, an exception or a cancellation, the program is ended
    first, with all that it started, and what `spawn` promises of clean-up holds. The streams belong
    to the block, too.

    Args:
        argv: The program and its arguments, or a whole `Command` (then the command's own fields are
            given on it), of which ``stdin`` and the fields about output are `spawn`'s and are left
            out.
        sandbox: Where it runs. Default: `Direct`, on this host, as this user.
        env, cwd: As for `Command`.
        timeout: Seconds that it has to start, waiting for a free place included; it then runs as
            long as the block. ``None``,
            0 or negative: the sandbox's ``default_timeout``.
        grace: Seconds between SIGTERM and SIGKILL where it still runs when the block is left.
        Default 0: SIGKILL at once.

    Raises:
        TypeError, ValueError, ConfigError: An argument is wrong, or the sandbox cannot do this;
            nothing was started.
        NotStartedError, TransportError, SpawnTimeoutError: It did not start; the block is not
            entered.
    """
    fields: dict[str, Any] = {"env": env, "cwd": cwd, "timeout": timeout, "grace": grace}
    if isinstance(argv, Command):
        command = argv
        defaults = {a.name: a.default for a in attrs.fields(Command)}
        given = [name for name, value in fields.items() if value != ({**defaults, "env": ()})[name]]
        if given:
            raise TypeError(
                f"{given[0]} was given beside a Command; set it on the Command (attrs.evolve makes a copy)"
            )
        foreign = [name for name in _OF_SPAWN if getattr(command, name) != defaults[name]]
        if foreign:
            raise TypeError(
                f"{foreign[0]} of the Command is for spawn; of an open process the streams are yours"
            )
    else:
        command = Command(argv, **fields)
    place = DIRECT if sandbox is None else sandbox
    opener = getattr(place, "open", None)
    if opener is None:
        raise TypeError(
            f"{type(place).__name__} can only run a program to its end; give it an async context manager open(command), "
            "which an ArgvSandbox inherits"
        )
    process: AbstractAsyncContextManager[Process] = opener(command)
    return process
