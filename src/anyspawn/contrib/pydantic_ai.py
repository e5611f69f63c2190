"""Pydantic AI: `BoxBackend`, a box as a workspace, and `GuardedToolset`, which asks hooks."""

from __future__ import annotations

from typing import Any

import anyspawn
from anyspawn.contrib._common import needs

with needs("pydantic-ai"):
    from pydantic_ai import workspaces

    from anyspawn.contrib._pydantic_ai_toolset import GuardedToolset

__all__ = ["BoxBackend", "GuardedToolset"]

_LIMIT = 16 * 2**20


class BoxBackend:
    """An open box as a workspace backend; files go through the box's shell."""

    def __init__(self, box: anyspawn.Box) -> None:
        self.box = box
        self.ref = workspaces.WorkspaceRef(provider="anyspawn", id=box.id)

    async def working_dir(self) -> str:
        return self.box.workdir

    async def run(
        self,
        command: workspaces.WorkspaceCommand,
        *,
        shell: bool = False,
        env: Any = None,
        timeout: float | None = None,
    ) -> workspaces.CommandResult:
        if shell is not isinstance(command, str):
            raise TypeError("command must be a str with shell=True, and a sequence without")
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        done = await self.box.spawn(
            argv, env=env or {}, timeout=timeout, leave="detached", output_limit=_LIMIT
        )
        output = {"stdout": done.text, "stderr": done.stderr_text}
        match done.error:
            case anyspawn.SpawnTimeoutError() as exc:
                raise workspaces.WorkspaceTimeoutError(str(exc), **output)
            case anyspawn.OutputLimitError() as exc:
                raise workspaces.WorkspaceOutputLimitError(str(exc), limit=_LIMIT, **output)
            case anyspawn.TransportError() as exc:
                raise workspaces.WorkspaceUnavailableError(str(exc))
            case anyspawn.NotStartedError(kind="not_found" | "not_executable") as exc:
                return workspaces.CommandResult(
                    exit_code=exc.exit_code, stdout="", stderr=exc.reason
                )
        code = done.check().returncode if done.returncode is None else done.returncode
        return workspaces.CommandResult(exit_code=code, **output)
