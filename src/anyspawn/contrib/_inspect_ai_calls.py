"""Calls of a box, with the outcomes and errors that Inspect expects."""

from __future__ import annotations

from typing import Any

from inspect_ai.util import ExecResult, OutputLimitExceededError, SandboxUserUnsupportedError
from inspect_ai.util import SandboxEnvironmentLimits as Limits
from inspect_ai.util._sandbox.environment import SandboxUnavailableError

import anyspawn

__all__ = ["read", "run"]


async def run(
    self: Any,
    cmd: list[str],
    input: Any = None,  # noqa: A002  Inspect's name
    cwd: Any = None,
    env: Any = None,
    user: Any = None,
    timeout: Any = None,
    **_: Any,
) -> ExecResult[str]:
    """Run a program in the environment's box, as `SandboxEnvironment.exec` must."""
    stdin = input.encode() if isinstance(input, str) else input or b""
    fields = {"stdin": stdin, "cwd": cwd, "env": env or {}, "user": user, "timeout": timeout}
    try:
        done = await self.box.spawn(
            cmd, output_limit=Limits.MAX_EXEC_OUTPUT_SIZE, leave="detached", **fields
        )
    except anyspawn.ConfigError as exc:
        raise (SandboxUserUnsupportedError if user else ValueError)(str(exc)) from None
    match done.error:
        case anyspawn.OutputLimitError():
            raise OutputLimitExceededError(Limits.MAX_EXEC_OUTPUT_SIZE_STR, done.text)
        case anyspawn.SpawnTimeoutError() | anyspawn.TransportError(started=None):
            raise TimeoutError(str(done.error))
        case anyspawn.TransportError():
            raise SandboxUnavailableError(str(done.error))
        case anyspawn.NotStartedError(kind="not_executable"):
            raise PermissionError(done.error.reason)
        case anyspawn.NotStartedError():
            return ExecResult(False, done.error.exit_code, "", done.error.reason)
    return ExecResult(done.ok, done.returncode or 0, done.text, done.stderr_text)


async def read(box: anyspawn.Box, path: str) -> bytes:
    """Return the content of a file."""
    try:
        return await box.read_file(path, limit=Limits.MAX_READ_FILE_SIZE)
    except anyspawn.OutputLimitError:
        raise OutputLimitExceededError(Limits.MAX_READ_FILE_SIZE_STR, None) from None
