"""Hooks that were written for OpenAI Codex. Pure.

As the JSON schemas and the hooks engine in its repository (openai/codex, ``codex-rs/hooks``) had it
in mid 2026. The protocol is that of Claude Code with fewer events and keys. What differs: status 2
needs a reason on stderr; some keys of Claude Code's are reserved, and fail the hook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from anyspawn.hooks._agents import Event, Outcome, Place, Verdict, get
from anyspawn.hooks._claude import by_phase, claude_message, judge_claude
from anyspawn.hooks._matchers import Style
from anyspawn.hooks._wire import WireError

__all__ = ["CODEX"]

_COMMON = frozenset(
    {"continue", "stopReason", "suppressOutput", "systemMessage", "hookSpecificOutput"}
)
_CONTEXT = "additionalContext"
_WITHOUT_STOP = ("PreToolUse", "PermissionRequest")
_TURN = ("PreToolUse", "PostToolUse", "PermissionRequest", "UserPromptSubmit", "Stop")


def _event(
    name: str,
    phase: str = "",
    subject: str = "",
    *,
    specific: Iterable[str] = (),
    decides: bool = False,
    guards: bool = False,
    context: bool = False,
) -> Event:
    return Event(
        name=name,
        phase=phase or name,
        subject=subject,
        guards=guards or decides,
        context=context,
        specific=frozenset({"hookEventName", *specific}),
        top=_COMMON | ({"decision", "reason"} if decides else frozenset[str]()),
    )


class Codex:
    """The protocol of OpenAI Codex."""

    name: ClassVar[str] = "codex"
    title: ClassVar[str] = "OpenAI Codex"
    events: ClassVar[Mapping[str, Event]] = by_phase(
        (
            _event(
                "PreToolUse",
                "before_execution",
                "tool_name",
                decides=True,
                specific=(
                    "permissionDecision",
                    "permissionDecisionReason",
                    "updatedInput",
                    _CONTEXT,
                ),
            ),
            _event(
                "PostToolUse",
                "after_execution",
                "tool_name",
                decides=True,
                specific=(_CONTEXT, "updatedToolOutput", "updatedMCPToolOutput"),
            ),
            _event("SessionStart", "session_start", "source", context=True, specific=(_CONTEXT,)),
            _event(
                "UserPromptSubmit",
                "session_update",
                decides=True,
                context=True,
                specific=(_CONTEXT,),
            ),
            _event("PermissionRequest", subject="tool_name", guards=True, specific=("decision",)),
            _event("PreCompact", guards=True),
            _event("PostCompact"),
            _event("SubagentStart", subject="agent_type", context=True, specific=(_CONTEXT,)),
            _event("SubagentStop", subject="agent_type", decides=True),
            _event("Stop", decides=True),
        )
    )
    style: ClassVar[Style] = "names"
    timeout: ClassVar[float] = 600.0
    variables: ClassVar[tuple[str, ...]] = ()

    def message(self, event: Event, parts: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return what the hook reads."""
        message = {"model": "", **claude_message(event, parts, place, self.title)}
        message["transcript_path"] = message["transcript_path"] or None
        if event.name in _TURN:
            message.setdefault("turn_id", "")
        return message

    def judge(self, event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
        """Return what the outcome means."""
        if outcome.status and not outcome.complaint:
            raise WireError("it exited with status 2, and wrote no reason to stderr")
        verdict = judge_claude(event, message, outcome)
        answer = verdict.metadata
        if event.name in _WITHOUT_STOP and get(answer, "stopReason", str) and verdict.allow:
            raise WireError(f"its answer has 'stopReason', which {event.name} does not know")
        if event.name == "PermissionRequest" and verdict.allow:
            decision = answer["hookSpecificOutput"]["decision"]
            if any(decision.get(name) for name in ("updatedInput", "updatedPermissions")):
                raise WireError("its decision has a key that Codex reserves, and fails on")
        return verdict

    def fails_closed(self, event: Event, *, unreadable: bool) -> bool:
        """Whether Codex itself stops the action: it does not."""
        return False


CODEX = Codex()
