"""Hooks as the SDK's callbacks before and after a tool runs."""

from __future__ import annotations

from typing import Any

from claude_agent_sdk import HookMatcher

from anyspawn.hooks import Decision, HookRunner, ToolRequest, ToolResponse

_PATIENCE = 3600.0
"""Seconds that the CLI waits for an answer: longer than the timeouts of the hooks."""


def tool_hooks(hooks: HookRunner) -> dict[Any, list[HookMatcher]]:
    """Return ``hooks`` for `ClaudeAgentOptions`: a runner's hooks judge each call of a tool and its
    result, and may rewrite both. The caller closes the runner.
    """

    async def ask(told: Any, call_id: str | None, _: Any) -> dict[str, Any]:
        event, name = told["hook_event_name"], told["tool_name"]
        request = ToolRequest(name=name, args=told["tool_input"], call_id=call_id or "")
        if event == "PreToolUse":
            return _before(await hooks.run("before_execution", request))
        response = ToolResponse(
            name=name,
            call_id=request.call_id,
            content=told.get("tool_response"),
            error=told.get("error", ""),
            latency_ms=told.get("duration_ms", 0),
        )
        return _after(event, await hooks.run("after_execution", (request, response)))

    matcher = HookMatcher(hooks=[ask], timeout=_PATIENCE, on_failure="block")
    return {event: [matcher] for event in ("PreToolUse", "PostToolUse", "PostToolUseFailure")}


def _before(decision: Decision) -> dict[str, Any]:
    said: dict[str, Any] = {"hookEventName": "PreToolUse"}
    if decision.blocks:
        said |= {"permissionDecision": "deny", "permissionDecisionReason": decision.reason}
    elif decision.payload is not None:
        said["updatedInput"] = decision.payload.args
    return {"hookSpecificOutput": said}


def _after(event: str, decision: Decision) -> dict[str, Any]:
    changed = decision.payload is not None
    if decision.blocks or (changed and event == "PostToolUseFailure"):
        # the CLI shows the model a result that is only blocked; the end of the turn keeps it
        return {"continue_": False, "stopReason": decision.reason}
    said: dict[str, Any] = {"hookEventName": event}
    if changed:
        said["updatedToolOutput"] = decision.payload.content
    return {"hookSpecificOutput": said}
