"""Hooks that were written for Cursor. Pure.

As cursor.com/docs/hooks had it in September 2026 (CLI build 2026.09.18). A verdict is a JSON object
on stdout with status 0; status 2 denies; other statuses stop nothing there, and deny here.
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
from anyspawn.hooks._matchers import Style
from anyspawn.hooks._wire import WireError

__all__ = ["CURSOR"]

_MESSAGES = ("user_message", "agent_message", "userMessage", "agentMessage")
_PERMISSION = ("permission", "continue", *_MESSAGES)
_CONTEXT = "additional_context"
_TOOL_EVENTS = ("preToolUse", "postToolUse", "postToolUseFailure")


def _event(
    name: str,
    phase: str = "",
    subject: str = "",
    *,
    top: Iterable[str] = (),
    guards: bool = False,
) -> Event:
    top = frozenset(top)
    return Event(
        name=name,
        phase=phase or name,
        subject=subject,
        guards=guards or "permission" in top,
        top=top,
    )


class Cursor:
    """The protocol of Cursor."""

    name: ClassVar[str] = "cursor"
    title: ClassVar[str] = "Cursor"
    events: ClassVar[Mapping[str, Event]] = by_phase(
        (
            _event(
                "preToolUse",
                "before_execution",
                "tool_name",
                top=(*_PERMISSION, "updated_input", "decision", "reason"),
            ),
            _event(
                "postToolUse",
                "after_execution",
                "tool_name",
                guards=True,
                top=(_CONTEXT, "updated_mcp_tool_output"),
            ),
            _event(
                "sessionStart",
                "session_start",
                guards=True,
                top=("continue", "user_message", "env", _CONTEXT),
            ),
            _event(
                "beforeSubmitPrompt",
                "session_update",
                guards=True,
                top=("continue", "user_message", _CONTEXT),
            ),
            _event("sessionEnd", "session_end"),
            _event("postToolUseFailure", subject="tool_name", top=(_CONTEXT,)),
            _event("subagentStart", subject="subagent_type", top=_PERMISSION),
            _event("subagentStop", subject="subagent_type", guards=True, top=("followup_message",)),
            _event("beforeShellExecution", subject="command", top=_PERMISSION),
            _event("afterShellExecution", subject="command"),
            _event("beforeMCPExecution", subject="tool_name", top=_PERMISSION),
            _event("afterMCPExecution", subject="tool_name"),
            _event("beforeReadFile", top=_PERMISSION),
            _event("afterFileEdit"),
            _event("beforeTabFileRead", top=_PERMISSION),
            _event("afterTabFileEdit"),
            _event("preCompact", top=("user_message",)),
            _event("stop", guards=True, top=("followup_message",)),
            _event("afterAgentResponse"),
            _event("afterAgentThought"),
            _event("workspaceOpen"),
        )
    )
    style: ClassVar[Style] = "search"
    timeout: ClassVar[float] = 60.0
    variables: ClassVar[tuple[str, ...]] = ("CURSOR_PROJECT_DIR", "CLAUDE_PROJECT_DIR")

    def message(self, event: Event, parts: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return what the hook reads."""
        subject = subject_of(parts, self.title)
        conversation = one_of(subject, ("ConversationID", "conversation_id"), "")
        message: dict[str, Any] = {
            "conversation_id": conversation,
            "session_id": one_of(subject, ("session_id", "SessionID"), conversation),
            "generation_id": "",
            "model": "",
            "cursor_version": "",
            "workspace_roots": [place.folder],
            "user_email": None,
            "transcript_path": None,
            **{name: value for name, value in subject.items() if name not in REFERENCE_NAMES},
            "hook_event_name": event.name,
        }
        if event.name in _TOOL_EVENTS:
            name, args, call = tool_of(subject)
            message |= {"tool_name": name, "tool_input": args, "tool_use_id": call}
            message.setdefault("cwd", place.folder)
        if event.name == "postToolUse":
            message["tool_output"] = _output(message["tool_name"], *response_of(parts))
        elif event.name == "beforeSubmitPrompt":
            message["prompt"] = prompt_of(subject)
            message.setdefault("attachments", [])
        elif event.name == "sessionStart":
            message = {"is_background_agent": False, "composer_mode": "agent", **message}
        elif event.name == "sessionEnd":
            message.setdefault("reason", "completed")
        return message

    def judge(self, event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
        """Return what the outcome means."""
        permission = "permission" in event.top
        if outcome.status:
            if not (permission or "continue" in event.top):
                raise WireError(f"it exited with status 2, by which {event.name} says nothing")
            return denied(outcome.complaint, {})
        answer, text = read_answer(outcome.stdout, guards=event.guards, prose=False)
        if answer is None:
            if text and event.guards:
                raise WireError("its answer is text, where there must be one JSON object")
            return Verdict(allow=True)
        closed(answer, event.top, event.name)
        said = next((text for name in _MESSAGES if (text := get(answer, name, str))), "")
        verdicts = [get(answer, name, str) for name in ("permission", "decision")]
        for verdict in verdicts:
            if verdict in {"deny", "block"}:
                return denied(said or get(answer, "reason", str), answer)
        if get(answer, "continue", bool) is False:
            return denied(said, answer)
        for verdict in verdicts:
            if verdict == "ask":
                return denied(f"the hook would have a person asked: {said}".rstrip(": "), answer)
            if verdict not in {None, "allow"}:
                raise WireError("its permission is none of allow, deny, ask")
        if verdicts == [None, None] and get(answer, "reason", str):
            raise WireError("its answer has a reason, and no decision")
        if followup := get(answer, "followup_message", str):
            return Verdict(allow=False, reason=followup, metadata=answer)
        return _changes(message, answer)

    def fails_closed(self, event: Event, *, unreadable: bool) -> bool:
        """Whether Cursor itself stops the action: where a permission could not be read."""
        return unreadable and "permission" in event.top


CURSOR = Cursor()


def _output(tool: str, content: Any, error: str) -> str:
    if isinstance(content, str) and tool in {"Shell", "Bash"}:
        content = {"output": content or error, "exitCode": 1 if error else 0}
    elif error:
        content = {"content": content, "error": error}
    return json.dumps(content, ensure_ascii=False)


def _changes(message: dict[str, Any], answer: dict[str, Any]) -> Verdict:
    context = get(answer, _CONTEXT, str)
    fields: dict[str, Any] = {"metadata": answer, "context": (context,) if context else ()}
    given = get(answer, "updated_input", dict)
    if given is not None and given != message["tool_input"]:
        fields["changed"] = ("input", given)
    output = answer.get("updated_mcp_tool_output")
    if output is not None:
        fields["changed"] = ("output", output)
    return Verdict(allow=True, **fields)
