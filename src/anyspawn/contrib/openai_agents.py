"""OpenAI's Agents SDK (openai-agents): shell calls in a box, and tools that hooks guard."""

from __future__ import annotations

import json
from typing import Any

import anyspawn
from anyspawn.contrib._common import needs, run_shell
from anyspawn.hooks import HookRunner, ToolRequest

with needs("openai-agents"):
    import agents
    from agents import ToolGuardrailFunctionOutput as Verdict

__all__ = ["shell_executor", "tool_guardrail"]


def shell_executor(box: anyspawn.Box) -> agents.ShellExecutor:
    """Return an ``executor`` for a `ShellTool` that runs commands in ``box``, one after the other;
    after a timeout the rest do not run.
    """

    async def execute(request: agents.ShellCommandRequest) -> agents.ShellResult:
        action, output = request.data.action, list[agents.ShellCommandOutput]()
        for command in action.commands:
            limit: Any = action.timeout_ms / 1000 if action.timeout_ms else "default"
            done, timed_out = await run_shell(box, command, timeout=limit)
            outcome = agents.ShellCallOutcome("timeout" if timed_out else "exit", done.returncode)
            output.append(agents.ShellCommandOutput(done.text, done.stderr_text, outcome, command))
            if timed_out:
                break
        return agents.ShellResult(output, action.max_output_length)

    return execute


def tool_guardrail(hooks: HookRunner) -> agents.ToolInputGuardrail[Any]:
    """Return a guardrail for function tools: hooks judge each call before it runs, and the model
    gets the reason of a denial. A rewritten call is refused, because a guardrail cannot change
    calls.
    """

    async def ask(data: agents.ToolInputGuardrailData) -> Verdict:
        call = data.context
        try:
            args = json.loads(call.tool_arguments or "{}")
        except ValueError:
            return Verdict.reject_content("the arguments are not valid JSON")
        request = ToolRequest(name=call.tool_name, args=args, call_id=call.tool_call_id)
        decision = await hooks.run("before_execution", request)
        if decision.blocks:
            return Verdict.reject_content(decision.reason)
        if decision.payload is not None:
            return Verdict.reject_content(f"hook {decision.hook!r} wants other arguments")
        return Verdict.allow()

    return agents.ToolInputGuardrail(ask, name="anyspawn")
