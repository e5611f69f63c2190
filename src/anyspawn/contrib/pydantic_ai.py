"""Pydantic AI: `BoxBackend`, a box as a workspace, and `GuardedToolset`, which asks hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext, ToolFailed, workspaces
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset

import anyspawn
from anyspawn.hooks import HookRunner, ToolRequest, ToolResponse

__all__ = ["BoxBackend", "GuardedToolset"]


class BoxBackend:
    """An open box as a workspace backend; files go through the box's shell."""

    def __init__(self, box: anyspawn.Box) -> None:
        self.box, self.ref = box, workspaces.WorkspaceRef(provider="anyspawn", id=box.id)

    async def working_dir(self) -> str:
        return self.box.workdir

    async def run(self, command: workspaces.WorkspaceCommand, *, shell: bool = False,
                  env: Any = None, timeout: float | None = None) -> workspaces.CommandResult:  # fmt: skip
        if shell is not isinstance(command, str):
            raise TypeError("command must be a str with shell=True, and a sequence without")
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        done = await self.box.spawn(argv, env=env or {}, timeout=timeout, leave="detached")
        texts, code, what = (done.text, done.stderr_text), done.returncode, str(done.error)
        match done.error:
            case anyspawn.SpawnTimeoutError():
                raise workspaces.WorkspaceTimeoutError(what, stdout=texts[0], stderr=texts[1])
            case anyspawn.OutputLimitError():
                raise workspaces.WorkspaceOutputLimitError(what, limit=16 * 2**20, stdout=texts[0])
            case anyspawn.TransportError():
                raise workspaces.WorkspaceUnavailableError(what)
            case anyspawn.NotStartedError(kind="not_found" | "not_executable") as error:
                code, texts = error.exit_code, ("", error.reason)
        exit_code = done.check().returncode or 0 if code is None else code
        return workspaces.CommandResult(exit_code=exit_code, stdout=texts[0], stderr=texts[1])


@dataclass
class GuardedToolset(WrapperToolset[Any]):  # type: ignore[misc]  # not installed everywhere
    """Another toolset, whose calls and results ``hooks`` judge, and may rewrite; the model gets the
    reason of a denial as the tool's failure. Who makes the runner closes it.
    """

    hooks: HookRunner

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any],
                        tool: ToolsetTool[Any]) -> Any:  # fmt: skip
        request = ToolRequest(name=name, args=tool_args, call_id=ctx.tool_call_id or "")
        request = await self._ask("before_execution", request) or request
        content = await self.wrapped.call_tool(name, request.args, ctx, tool)
        answer = ToolResponse(name=name, call_id=request.call_id, content=content)
        return (await self._ask("after_execution", (request, answer)) or answer).content

    async def _ask(self, phase: Any, payload: Any) -> Any:
        decision = await self.hooks.run(phase, payload)
        if decision.blocks:
            raise ToolFailed(decision.reason)
        return decision.payload
