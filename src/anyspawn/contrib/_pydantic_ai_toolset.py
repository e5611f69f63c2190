"""A toolset of Pydantic AI that asks hooks about another toolset's calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext, ToolFailed
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset

from anyspawn.hooks import HookRunner, ToolRequest, ToolResponse

__all__ = ["GuardedToolset"]


@dataclass
class GuardedToolset(WrapperToolset[Any]):  # type: ignore[misc]  # not installed everywhere
    """Wraps a toolset: ``hooks`` judge its calls and results, and may rewrite them; the model gets
    the reason of a denial as the tool's failure. The caller closes the runner.
    """

    hooks: HookRunner

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
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
