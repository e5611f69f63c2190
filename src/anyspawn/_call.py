"""`spawn`, the function that most callers need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from anyspawn._model import Command, Completed, Sandbox
from anyspawn._sandbox import ArgvSandbox
from anyspawn.sandboxes.direct import Direct

__all__ = ["DIRECT", "spawn"]

DIRECT = Direct()


async def spawn(
    argv: Sequence[str] | Command,
    *,
    sandbox: Sandbox | None = None,
    stdin: bytes | None = b"",
    env: Mapping[str, str] | Iterable[str] = (),
    cwd: str | None = None,
    timeout: float | None = None,
    wait_delay: float = 0.5,
    grace: float = 0.0,
    output_limit: int = 16 * 2**20,
    overflow: Literal["error", "truncate"] = "error",
    on_output: Callable[[Literal["stdout", "stderr"], bytes], Awaitable[None] | None] | None = None,
    check: bool = False,
) -> Completed:
    """Run a program to its end, in a sandbox, and return how it came out.

    The call returns within ``timeout + grace + wait_delay`` and a bounded clean-up, whatever the
    program does. Cancel
    it at any moment: the work is ended first, then the cancellation goes on.

    Args:
        argv: The program and its arguments, or a whole `Command` (then the command's own fields are
            given on it).
        sandbox: Where it runs. Default: `Direct`, on this host, as this user.
        stdin, env, cwd, timeout, wait_delay, grace, output_limit, overflow, on_output: As for
            `Command`.
        check: Raise the outcome's ``error`` instead of returning it.

    Returns:
        The outcome. A failure stands in its ``error``, unless ``check`` is set.

    Raises:
        TypeError, ValueError, ConfigError: An argument is wrong; nothing was started.
        SpawnError: With ``check``, the failure.
    """
    fields: dict[str, Any] = {
        "stdin": stdin,
        "env": env,
        "cwd": cwd,
        "timeout": timeout,
        "wait_delay": wait_delay,
        "grace": grace,
        "output_limit": output_limit,
        "overflow": overflow,
        "on_output": on_output,
    }
    if isinstance(argv, Command):
        command = argv
        defaults = {a.name: a.default for a in attrs.fields(Command)} | {"env": ()}
        given = [name for name, value in fields.items() if value != defaults[name]]
        if given:
            raise TypeError(
                f"{given[0]} was given beside a Command; set it on the Command (attrs.evolve makes a copy)"
            )
    else:
        command = Command(argv, **fields)
    if sandbox is not None and not isinstance(
        sandbox, (ArgvSandbox, Sandbox)
    ):  # the protocol takes long to ask
        raise TypeError(
            f"sandbox must have a name and an async spawn(command), as {type(sandbox).__name__} has not"
        )
    completed = await (DIRECT if sandbox is None else sandbox).spawn(command)
    return completed.check() if check else completed
