"""Hooks that were written for Claude Code: its command-hook protocol, in both directions. Pure.

As its hooks reference described it in July 2026 (Claude Code 2.1.218), with the event names of
2.1.296 (October 2026). A hook reads one JSON object on stdin. It answers by its exit status (0: go
on; 2: stop, with stderr as the reason; others: an error that stops nothing there) or, with status
0, by a JSON object that is all of its stdout.

anyspawn differs on purpose: a failure denies; an answer with a key that the event does not know is
a failure; ``"ask"`` and ``"defer"`` deny, and so does a hook that has no answer to a request for
permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from attrs import evolve

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
from anyspawn.hooks._matchers import Style
from anyspawn.hooks._wire import WireError

__all__ = ["BLOCKED", "CLAUDE", "Claude", "by_phase", "claude_message", "judge_claude"]

BLOCKED = 2
"""The status by which a hook blocks."""

_COMMON = frozenset(
    {
        "continue",
        "stopReason",
        "suppressOutput",
        "systemMessage",
        "terminalSequence",
        "hookSpecificOutput",
    }
)
_DECISION = ("decision", "reason")
_TOOL_EVENTS = (
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "PermissionDenied",
)
_ENDINGS = ("Stop", "SubagentStop")
_PERMISSION = frozenset({"behavior", "updatedInput", "updatedPermissions", "message", "interrupt"})
_CONTEXT = "additionalContext"


def _event(
    name: str,
    phase: str = "",
    subject: str = "",
    *,
    specific: Iterable[str] = (_CONTEXT,),
    decides: bool = False,
    guards: bool = False,
    top: Iterable[str] = (),
    **fields: Any,
) -> Event:
    return Event(
        name=name,
        phase=phase or name,
        subject=subject,
        guards=guards or decides,
        specific=frozenset({"hookEventName", *specific}),
        top=_COMMON | {*top, *(_DECISION if decides else ())},
        **fields,
    )


_EVENTS = (
    _event(
        "PreToolUse",
        "before_execution",
        "tool_name",
        decides=True,
        specific=("permissionDecision", "permissionDecisionReason", "updatedInput", _CONTEXT),
    ),
    _event(
        "PostToolUse",
        "after_execution",
        "tool_name",
        decides=True,
        specific=(_CONTEXT, "updatedToolOutput", "updatedMCPToolOutput"),
    ),
    _event(
        "SessionStart",
        "session_start",
        "source",
        context=True,
        specific=(_CONTEXT, "initialUserMessage", "watchPaths", "sessionTitle", "reloadSkills"),
    ),
    _event(
        "UserPromptSubmit",
        "session_update",
        context=True,
        decides=True,
        timeout=30.0,
        top=("suppressOriginalPrompt",),
        specific=(_CONTEXT, "sessionTitle", "suppressOriginalPrompt"),
    ),
    _event("SessionEnd", "session_end", "reason", specific=(), timeout=1.5),
    _event("Setup", subject="trigger"),
    _event("UserPromptExpansion", subject="command_name", context=True, decides=True),
    _event("PermissionRequest", subject="tool_name", guards=True, specific=("decision",)),
    _event("PermissionDenied", subject="tool_name", specific=("retry",)),
    _event("PostToolUseFailure", subject="tool_name", decides=True),
    _event("PostToolBatch", decides=True),
    _event("Notification", subject="notification_type"),
    _event("MessageDisplay", specific=("displayContent",), timeout=10.0),
    _event("SubagentStart", subject="agent_type"),
    _event("SubagentStop", subject="agent_type", decides=True),
    _event("TaskCreated", guards=True, specific=()),
    _event("TaskCompleted", guards=True, specific=()),
    _event("Stop", decides=True),
    _event("StopFailure", subject="error_type", specific=()),
    _event("TeammateIdle", guards=True, specific=()),
    _event("InstructionsLoaded", subject="load_reason", specific=()),
    _event("ConfigChange", subject="source", decides=True, specific=()),
    _event("CwdChanged", specific=("watchPaths",)),
    _event("DirectoryAdded", subject="source", specific=()),
    _event("FileChanged", specific=("watchPaths",)),
    _event("WorktreeCreate", guards=True, specific=("worktreePath",)),
    _event("WorktreeRemove", specific=()),
    _event("PreCompact", subject="trigger", decides=True, specific=()),
    _event("PostCompact", subject="trigger", specific=()),
    _event("Elicitation", subject="mcp_server_name", guards=True, specific=("action", "content")),
    _event(
        "ElicitationResult", subject="mcp_server_name", guards=True, specific=("action", "content")
    ),
    _event("PreModelSwitch", decides=True, specific=(), timeout=30.0),
    _event("PostModelSwitch", specific=(), timeout=30.0),
)


def by_phase(events: Iterable[Event]) -> Mapping[str, Event]:
    """Return events by their phases."""
    return {event.phase: event for event in events}


class Claude:
    """The protocol of Claude Code."""

    name: ClassVar[str] = "claude"
    title: ClassVar[str] = "Claude Code"
    events: ClassVar[Mapping[str, Event]] = by_phase(_EVENTS)
    style: ClassVar[Style] = "names"
    timeout: ClassVar[float] = 600.0
    variables: ClassVar[tuple[str, ...]] = ("CLAUDE_PROJECT_DIR",)

    def message(self, event: Event, parts: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return what the hook reads; see `claude_message`."""
        return claude_message(event, parts, place, self.title)

    def judge(self, event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
        """Return what the outcome means; see `judge_claude`."""
        return judge_claude(event, message, outcome)

    def fails_closed(self, event: Event, *, unreadable: bool) -> bool:
        """Whether Claude Code itself denies the action: for a new worktree, and for a switch of the
        model.
        """
        return event.name in {"WorktreeCreate", "PreModelSwitch"}


CLAUDE = Claude()


def claude_message(event: Event, parts: dict[str, Any], place: Place, title: str) -> dict[str, Any]:
    """Return what the hook reads; fields of the payload that are not the reference's are passed on
    unchanged.

    Raises:
        WireError: The payload is not an object, names no tool, or contradicts itself.
    """
    subject = subject_of(parts, title)
    message = {
        "session_id": one_of(subject, ("session_id", "SessionID"), ""),
        "transcript_path": "",
        "cwd": place.folder,
        "permission_mode": "default",
        **{name: value for name, value in subject.items() if name not in REFERENCE_NAMES},
        "hook_event_name": event.name,
    }
    if event.name in _TOOL_EVENTS:
        name, args, call = tool_of(subject)
        message |= {"tool_name": name, "tool_input": args}
        if event.name != "PermissionRequest":
            message["tool_use_id"] = call
    if event.name == "PostToolUse":
        message["tool_response"] = _response(message["tool_name"], *response_of(parts))
    elif event.name == "UserPromptSubmit":
        message["prompt"] = prompt_of(subject)
    elif event.name == "SessionStart":
        message.setdefault("source", "startup")
    elif event.name == "SessionEnd":
        message.setdefault("reason", "other")
    return message


def _response(tool: str, content: Any, error: str) -> Any:
    """Return a result in the form that hooks expect for that tool."""
    if tool == "Bash" and (isinstance(content, str) or (content is None and error)):
        return {"stdout": content or "", "stderr": error, "interrupted": False, "isImage": False}
    if not error:
        return content
    return error if content is None else {"content": content, "error": error}


def judge_claude(event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
    """Return what the outcome of a hook that exited with 0 or 2 means.

    Raises:
        WireError: It cannot be read, or has a key that the event does not know.
    """
    if outcome.status == BLOCKED:
        if not event.guards:
            raise WireError(f"it exited with status 2, and {event.name} cannot be stopped")
        return denied(outcome.complaint, {})
    answer, text = read_answer(outcome.stdout, guards=event.guards, prose=event.context)
    if answer is None:
        return _silent(event, text)
    closed(answer, event.top, event.name)
    if get(answer, "continue", bool) is False:
        stops = get(answer, "stopReason", str) or "the hook stopped the work"
        if event.name in _ENDINGS:  # the work ends, as the hook wants it to
            return Verdict(allow=True, reason=stops, metadata=answer)
        return denied(stops, answer)
    _texts(answer, ("stopReason", "systemMessage", "terminalSequence"))
    general = _general(answer)
    if not general.allow:
        return general
    specific = _specific(event, message, answer)
    if specific.allow and not specific.reason:
        return evolve(specific, reason=general.reason)
    return specific


def _silent(event: Event, text: str) -> Verdict:
    if event.name == "PermissionRequest":
        return denied("the hook gave no answer, and there is nobody to ask", {})
    if event.name == "WorktreeCreate":
        if not text:
            raise WireError("it printed no path of a worktree")
        return Verdict(allow=True, metadata={"worktreePath": text})
    if event.context and text:
        return Verdict(allow=True, metadata={_CONTEXT: text}, context=(text,))
    return Verdict(allow=True)


def _texts(answer: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        get(answer, name, str)


def _general(answer: dict[str, Any]) -> Verdict:
    verdict, reason = get(answer, "decision", str), get(answer, "reason", str)
    if verdict == "block":
        return denied(reason, answer)
    if verdict not in {None, "approve"}:
        raise WireError(f"its decision is {verdict[:64]!r}, and neither approve nor block")
    if verdict is None and reason:
        raise WireError("its answer has a reason, and no decision")
    return Verdict(allow=True, reason=reason or "", metadata=answer)


def _specific(event: Event, message: dict[str, Any], answer: dict[str, Any]) -> Verdict:
    specific = get(answer, "hookSpecificOutput", dict)
    if specific is None:
        if event.name == "PermissionRequest":
            return denied("the hook gave no answer, and there is nobody to ask", answer)
        return Verdict(allow=True, metadata=answer)
    if specific.get("hookEventName") != event.name:
        raise WireError(f"its hookSpecificOutput is not one for {event.name} (see hookEventName)")
    closed(specific, event.specific, f"the hookSpecificOutput of {event.name}")
    context = get(specific, _CONTEXT, str)
    fields: dict[str, Any] = {"context": (context,) if context else ()}
    if event.name == "PreToolUse":
        return _permission(specific, message, answer, fields)
    if event.name == "PermissionRequest":
        return _request(specific, message, answer)
    if event.name == "PostToolUse":
        return _output(specific, message, answer, fields)
    action = get(specific, "action", str)
    if action in {"decline", "cancel"}:
        return denied(f"the hook would {action} it", answer)
    if action not in {None, "accept"}:
        raise WireError(f"its action is {action[:64]!r}, and none of accept, decline, cancel")
    return Verdict(allow=True, metadata=answer, **fields)


def _permission(
    specific: dict[str, Any],
    message: dict[str, Any],
    answer: dict[str, Any],
    fields: dict[str, Any],
) -> Verdict:
    verdict = get(specific, "permissionDecision", str)
    reason = get(specific, "permissionDecisionReason", str) or ""
    changed = get(specific, "updatedInput", dict)
    if verdict == "deny":
        return denied(reason, answer, **fields)
    if verdict in {"ask", "defer"}:
        asks = f"the hook would have a person asked ({verdict}): {reason}"
        return denied(asks.rstrip(": "), answer, **fields)
    if verdict not in {None, "allow"}:
        raise WireError(
            f"its permissionDecision is {verdict[:64]!r}, and none of allow, deny, ask, defer"
        )
    if verdict is None and reason:
        raise WireError("its answer has a permissionDecisionReason, and no permissionDecision")
    if changed is not None and changed != message["tool_input"]:
        fields["changed"] = ("input", changed)
    return Verdict(allow=True, reason=reason, metadata=answer, **fields)


def _request(specific: dict[str, Any], message: dict[str, Any], answer: dict[str, Any]) -> Verdict:
    verdict = get(specific, "decision", dict)
    if verdict is None:
        return denied("the hook gave no answer, and there is nobody to ask", answer)
    closed(verdict, _PERMISSION, "the decision of PermissionRequest")
    behavior, interrupt = get(verdict, "behavior", str), get(verdict, "interrupt", bool)
    if behavior == "deny":
        return denied(get(verdict, "message", str), answer)
    if behavior != "allow" or interrupt:
        raise WireError("its behavior is neither allow nor deny, or allows and interrupts")
    changed = get(verdict, "updatedInput", dict)
    differs = changed is not None and changed != message["tool_input"]
    return Verdict(allow=True, metadata=answer, changed=("input", changed) if differs else None)


def _output(
    specific: dict[str, Any],
    message: dict[str, Any],
    answer: dict[str, Any],
    fields: dict[str, Any],
) -> Verdict:
    names = ("updatedToolOutput", "updatedMCPToolOutput")
    changed = [specific[name] for name in names if specific.get(name) is not None]
    if len(changed) == 2 and changed[0] != changed[1]:
        raise WireError("its updatedToolOutput and updatedMCPToolOutput differ")
    if changed and changed[0] != message["tool_response"]:
        fields["changed"] = ("output", changed[0])
    return Verdict(allow=True, metadata=answer, **fields)
