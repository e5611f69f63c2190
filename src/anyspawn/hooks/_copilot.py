"""Hooks that were written for GitHub Copilot CLI and its cloud agent. Pure.

As GitHub's hooks reference (docs.github.com, "GitHub Copilot hooks reference") had it in mid 2026:
the camelCase form, in which a tool's arguments are a JSON text. A verdict is a JSON object on
stdout with status 0; status 2 is a warning there, and a denial of ``permissionRequest``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from anyspawn.hooks._agents import (
    REFERENCE_NAMES,
    Event,
    Outcome,
    Place,
    Verdict,
    closed,
    denied,
    get,
    one_of,
    prompt_of,
    response_of,
    subject_of,
    tool_of,
)
from anyspawn.hooks._answers import read_answer
from anyspawn.hooks._claude import by_phase
from anyspawn.hooks._json import is_object
from anyspawn.hooks._matchers import Style
from anyspawn.hooks._wire import WireError

__all__ = ["COPILOT"]

_TOOL_EVENTS = ("preToolUse", "postToolUse", "postToolUseFailure", "permissionRequest")
_CONTEXT = "additionalContext"


def _event(
    name: str, phase: str = "", subject: str = "", *, top: Iterable[str] = (), guards: bool = False
) -> Event:
    return Event(name=name, phase=phase or name, subject=subject, guards=guards, top=frozenset(top))


class Copilot:
    """The protocol of GitHub Copilot CLI."""

    name: ClassVar[str] = "copilot"
    title: ClassVar[str] = "GitHub Copilot CLI"
    events: ClassVar[Mapping[str, Event]] = by_phase(
        (
            _event(
                "preToolUse",
                "before_execution",
                "toolName",
                guards=True,
                top=("permissionDecision", "permissionDecisionReason", "modifiedArgs"),
            ),
            _event("postToolUse", "after_execution"),
            _event("sessionStart", "session_start", top=(_CONTEXT,)),
            _event("userPromptSubmitted", "session_update"),
            _event("sessionEnd", "session_end"),
            _event("agentStop", guards=True, top=("decision", "reason")),
            _event("subagentStart", subject="agentName", top=(_CONTEXT,)),
            _event("subagentStop", guards=True, top=("decision", "reason")),
            _event("errorOccurred"),
            _event("notification", subject="notification_type", top=(_CONTEXT,)),
            _event(
                "permissionRequest",
                subject="toolName",
                guards=True,
                top=("behavior", "message", "interrupt"),
            ),
            _event("postToolUseFailure", top=(_CONTEXT,)),
            _event("preCompact", subject="trigger"),
        )
    )
    style: ClassVar[Style] = "full"
    timeout: ClassVar[float] = 30.0
    variables: ClassVar[tuple[str, ...]] = ()

    def message(self, event: Event, parts: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return what the hook reads."""
        subject = subject_of(parts, self.title)
        other = REFERENCE_NAMES | {"tool_name", "tool_input", "tool_use_id", "session_id"}
        message = {
            "sessionId": one_of(subject, ("sessionId", "session_id", "SessionID"), ""),
            "timestamp": int(place.now * 1000),
            "cwd": place.folder,
            **{name: value for name, value in subject.items() if name not in other},
        }
        if event.name in _TOOL_EVENTS:
            name, args, _ = tool_of(subject)
            message |= {"toolName": name, "toolArgs": json.dumps(args, ensure_ascii=False)}
        if event.name == "postToolUse":
            content, error = response_of(parts)
            own = is_object(content) and "textResultForLlm" in content
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            message["toolResult"] = (
                content
                if own
                else {
                    "resultType": "failure" if error else "success",
                    "textResultForLlm": error or text,
                }
            )
        elif event.name == "userPromptSubmitted":
            message["prompt"] = prompt_of(subject)
        elif event.name == "sessionStart":
            message.setdefault("source", "new")
        elif event.name == "sessionEnd":
            message.setdefault("reason", "complete")
        elif event.name == "notification":
            message["hook_event_name"] = "Notification"
        return message

    def judge(self, event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
        """Return what the outcome means."""
        if outcome.status:
            if event.name == "permissionRequest":
                return denied(outcome.complaint, {})
            raise WireError(f"it exited with status 2, by which {event.name} says nothing")
        answer, _ = read_answer(outcome.stdout, guards=event.guards, prose=False)
        if answer is None:
            if outcome.stdout.strip() and event.guards:
                raise WireError("its answer is text, where there must be one JSON object")
            answer = {}
        closed(answer, event.top, event.name)
        context = get(answer, _CONTEXT, str)
        if context:
            return Verdict(allow=True, metadata=answer, context=(context,))
        if event.name == "preToolUse":
            return _permission(message, answer)
        if event.name == "permissionRequest":
            return _request(answer)
        decision, reason = get(answer, "decision", str), get(answer, "reason", str)
        if decision == "block":
            return denied(reason, answer)
        if decision not in {None, "allow"} or (decision is None and reason):
            raise WireError("its decision is neither block nor allow")
        return Verdict(allow=True, metadata=answer)

    def fails_closed(self, event: Event, *, unreadable: bool) -> bool:
        """Whether Copilot itself stops the action: it does not."""
        return False


COPILOT = Copilot()


def _permission(message: dict[str, Any], answer: dict[str, Any]) -> Verdict:
    verdict = get(answer, "permissionDecision", str)
    reason = get(answer, "permissionDecisionReason", str) or ""
    if verdict == "deny":
        return denied(reason, answer)
    if verdict == "ask":
        return denied(f"the hook would have a person asked: {reason}".rstrip(": "), answer)
    if verdict not in {None, "allow"} or (verdict is None and reason):
        raise WireError("its permissionDecision is none of allow, deny, ask")
    changed = get(answer, "modifiedArgs", dict)
    differs = changed is not None and changed != json.loads(message["toolArgs"])
    return Verdict(
        allow=True,
        reason=reason,
        metadata=answer,
        changed=("input", changed) if differs else None,
    )


def _request(answer: dict[str, Any]) -> Verdict:
    behavior, interrupt = get(answer, "behavior", str), get(answer, "interrupt", bool)
    if behavior == "deny":
        return denied(get(answer, "message", str), answer)
    if behavior is None and not interrupt and not get(answer, "message", str):
        return denied("the hook gave no answer, and there is nobody to ask", answer)
    if behavior != "allow" or interrupt:
        raise WireError("its behavior is neither allow nor deny, or allows and interrupts")
    return Verdict(allow=True, metadata=answer)
