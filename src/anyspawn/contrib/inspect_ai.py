"""Sandboxes of Inspect (inspect_ai) in any box: the provider ``anyspawn``, and `provider`."""

from __future__ import annotations

from typing import Any

from inspect_ai.util import ExecResult, OutputLimitExceededError, SandboxEnvironment, sandboxenv
from inspect_ai.util import SandboxEnvironmentLimits as Limits
from inspect_ai.util import SandboxUserUnsupportedError as UserUnsupportedError
from inspect_ai.util._sandbox.environment import SandboxUnavailableError as UnavailableError

import anyspawn

__all__ = ["AnyspawnEnvironment", "provider"]


class AnyspawnEnvironment(SandboxEnvironment):  # type: ignore[misc]  # not installed everywhere
    """A box for each sample: files, ``/tmp`` and background processes last as long as it."""

    sandbox: anyspawn.Sandbox = anyspawn.Bubblewrap()

    def __init__(self, box: anyspawn.Box) -> None:
        super().__init__()
        self.box = box

    async def exec(
        self,
        cmd: list[str],
        input: Any = None,  # noqa: A002  Inspect's name
        cwd: Any = None,
        env: Any = None,
        user: Any = None,
        timeout: Any = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        stdin = input.encode() if isinstance(input, str) else input or b""
        try:
            done = await self.box.spawn(
                cmd,
                stdin=stdin,
                cwd=cwd,
                env=env or {},
                user=user,
                timeout=timeout,
                output_limit=Limits.MAX_EXEC_OUTPUT_SIZE,
            )
        except anyspawn.ConfigError as exc:
            raise (UserUnsupportedError if user else ValueError)(str(exc)) from None
        match done.error:
            case anyspawn.OutputLimitError():
                raise OutputLimitExceededError(Limits.MAX_EXEC_OUTPUT_SIZE_STR, done.text)
            case anyspawn.SpawnTimeoutError() | anyspawn.TransportError(started=None):
                raise TimeoutError(str(done.error))
            case anyspawn.TransportError():
                raise UnavailableError(str(done.error))
            case anyspawn.NotStartedError(kind="not_executable"):
                raise PermissionError(done.error.reason)
            case anyspawn.NotStartedError():
                return ExecResult(False, done.error.exit_code, "", done.error.reason)
        return ExecResult(done.ok, done.returncode or 0, done.text, done.stderr_text)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        await self.box.write_file(file, contents)

    async def read_file(self, file: str, text: bool = True) -> Any:
        try:
            data = await self.box.read_file(file, limit=Limits.MAX_READ_FILE_SIZE)
        except anyspawn.OutputLimitError:
            raise OutputLimitExceededError(Limits.MAX_READ_FILE_SIZE_STR, None) from None
        return data.decode() if text else data

    @classmethod
    async def sample_init(cls, task_name: str, config: Any, metadata: Any) -> dict[str, Any]:
        return {"default": cls(await anyspawn.start_box(cls.sandbox))}

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: dict[str, Any], interrupted: bool
    ) -> None:
        for environment in environments.values():
            await environment.box.aclose()


def provider(name: str, sandbox: anyspawn.Sandbox) -> type[AnyspawnEnvironment]:
    """Register ``sandbox`` as a sandbox of Inspect called ``name``, a box for each sample."""
    made = type(name, (AnyspawnEnvironment,), {"sandbox": sandbox})
    sandboxenv(name=name)(made)
    return made


sandboxenv(name="anyspawn")(AnyspawnEnvironment)
