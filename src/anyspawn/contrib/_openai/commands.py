"""The part of a session that runs commands to their end, once there is a box."""

from __future__ import annotations

from typing import Any

from agents.sandbox import ExecResult, ExecTimeoutError, ExecTransportError
from agents.sandbox.session import BaseSandboxSession

import anyspawn

__all__ = ["Commands"]


class Commands(BaseSandboxSession):  # type: ignore[misc]  # not installed everywhere
    """Processes that a command leaves run until the box ends."""

    _box: anyspawn.Box | None = None

    @property
    def box(self) -> anyspawn.Box:
        if self._box is None:
            raise RuntimeError("the session has no box: await its start() first")
        return self._box

    async def _fields(self, user: Any) -> dict[str, Any]:
        env = await self.state.manifest.environment.resolve()
        return {"env": env, "user": getattr(user, "name", user)}

    async def exec(
        self, *command: Any, timeout: float | None = None, shell: Any = True, user: Any = None
    ) -> ExecResult:
        argv = self._prepare_exec_command(*command, shell=shell, user=None)
        return await self._exec_internal(*argv, timeout=timeout, user=user)

    async def _exec_internal(
        self, *command: Any, timeout: float | None = None, user: Any = None, stdin: bytes = b""
    ) -> ExecResult:
        done = await self.box.spawn(
            command,
            stdin=stdin,
            timeout=None if timeout is None else max(timeout, 0.001),
            leave="detached",
            **await self._fields(user),
        )
        match done.error:
            case anyspawn.SpawnTimeoutError() as exc:
                raise ExecTimeoutError(command=command, timeout_s=timeout, cause=exc)
            case anyspawn.NotStartedError() as exc:
                return ExecResult(stdout=b"", stderr=exc.reason.encode(), exit_code=exc.exit_code)
            case anyspawn.OutputLimitError() as exc:
                return ExecResult(stdout=done.stdout, stderr=str(exc).encode(), exit_code=137)
        if done.returncode is None:
            raise ExecTransportError(command=command, message=str(done.error), cause=done.error)
        return ExecResult(stdout=done.stdout, stderr=done.stderr, exit_code=done.returncode)
