"""Hooks that were written for Gemini CLI. Pure.

As docs/hooks/reference.md in its repository (google-gemini/gemini-cli) had it in mid 2026. Stdout
must be the JSON object alone there; status 2 blocks, with stderr as the reason; other statuses are
warnings there, and failures here.
"""

from __future__ import annotations

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
    message_text,
    one_of,
    prompt_of,
    response_of,
    subject_of,
    tool_of,
)
from anyspawn.hooks._answers import read_answer
from anyspawn.hooks._claude import by_phase
from anyspawn.hooks._json import is_array, is_object
from anyspawn.hooks._matchers import Style
from anyspawn.hooks._payloads import to_wire
from anyspawn.hooks._wire import WireError

__all__ = ["GEMINI"]

_TOLD = frozenset({"systemMessage", "suppressOutput", "hookSpecificOutput"})
_DECIDES = frozenset({"continue", "stopReason", "decision", "reason"})
_CONTEXT = "additionalContext"


def _event(
    name: str,
    phase: str = "",
    subject: str = "",
    *,
    specific: Iterable[str] = (),
    guards: bool = False,
) -> Event:
    return Event(
        name=name,
        phase=phase or name,
        subject=subject,
        guards=guards,
        specific=frozenset({"hookEventName", *specific}),
        top=_TOLD | (_DECIDES if guards else frozenset[str]()),
    )


class Gemini:
    """The protocol of Gemini CLI."""

    name: ClassVar[str] = "gemini"
    title: ClassVar[str] = "Gemini CLI"
    events: ClassVar[Mapping[str, Event]] = by_phase(
        (
            _event(
                "BeforeTool",
                "before_execution",
                "tool_name",
                guards=True,
                specific=("tool_input",),
            ),
            _event(
                "AfterTool",
                "after_execution",
                "tool_name",
                guards=True,
                specific=("tool_output", _CONTEXT),
            ),
            _event(
                "BeforeModel",
                "before_call",
                guards=True,
                specific=("llm_request", "llm_response"),
            ),
            _event("AfterModel", "after_call", guards=True, specific=("llm_response",)),
            _event("SessionStart", "session_start", "=source", specific=(_CONTEXT,)),
            _event("BeforeAgent", "session_update", guards=True, specific=(_CONTEXT,)),
            _event("SessionEnd", "session_end", "=reason"),
            _event("AfterAgent", guards=True, specific=("clearContext",)),
            _event("BeforeToolSelection", specific=("toolConfig",)),
            _event("Notification", subject="=notification_type"),
            _event("PreCompress", subject="=trigger"),
        )
    )
    style: ClassVar[Style] = "search"
    timeout: ClassVar[float] = 60.0
    variables: ClassVar[tuple[str, ...]] = ("GEMINI_PROJECT_DIR", "CLAUDE_PROJECT_DIR")

    def message(self, event: Event, parts: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return what the hook reads."""
        subject = subject_of(parts, self.title)
        message = {
            "session_id": one_of(subject, ("session_id", "SessionID"), ""),
            "transcript_path": "",
            "cwd": place.folder,
            "timestamp": place.time,
            **{name: value for name, value in subject.items() if name not in REFERENCE_NAMES},
            "hook_event_name": event.name,
        }
        if event.phase in {"before_execution", "after_execution"}:
            message["tool_name"], message["tool_input"], _ = tool_of(subject)
            message.pop("tool_use_id", None)
        if event.name == "AfterTool":
            message["tool_response"] = _response(*response_of(parts))
        elif event.phase in {"before_call", "after_call"}:
            message.setdefault("llm_request", _request(subject))
        elif event.name == "BeforeAgent":
            message["prompt"] = prompt_of(subject)
        elif event.name == "SessionStart":
            message.setdefault("source", "startup")
        elif event.name == "SessionEnd":
            message.setdefault("reason", "other")
        if event.name == "AfterModel":
            message["llm_response"] = _answer(to_wire(parts.get("response")))
        return message

    def judge(self, event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
        """Return what the outcome means."""
        if outcome.status:
            if not event.guards:
                raise WireError(f"it exited with status 2, and {event.name} cannot be stopped")
            return _denied(event, outcome.complaint, {})
        answer, text = read_answer(outcome.stdout, guards=event.guards, prose=False)
        if answer is None:
            if text and event.guards:
                raise WireError("its answer is text, where there must be one JSON object")
            return Verdict(allow=True)
        closed(answer, event.top, event.name)
        if get(answer, "continue", bool) is False:
            return _denied(event, get(answer, "stopReason", str) or "", answer)
        decision, reason = get(answer, "decision", str), get(answer, "reason", str)
        if decision in {"deny", "block"}:
            return _denied(event, reason or "", answer)
        if decision == "ask":
            return denied(f"the hook would have a person asked: {reason or ''}", answer)
        if decision not in {None, "allow", "approve"} or (decision is None and reason):
            raise WireError("its decision is none of allow, deny, block, ask")
        return _specific(event, message, answer, reason or "")

    def fails_closed(self, event: Event, *, unreadable: bool) -> bool:
        """Whether Gemini CLI itself stops the action: it does not."""
        return False


GEMINI = Gemini()


def _denied(event: Event, reason: str, answer: Mapping[str, Any]) -> Verdict:
    """Return a denial; after a tool, its reason replaces the result."""
    stands_in = reason if event.name == "AfterTool" and reason else None
    return denied(reason, answer, replacement=stands_in)


def _specific(
    event: Event, message: dict[str, Any], answer: dict[str, Any], reason: str
) -> Verdict:
    specific: dict[str, Any] = get(answer, "hookSpecificOutput", dict) or {}
    if specific.get("hookEventName", event.name) != event.name:
        raise WireError(f"its hookSpecificOutput is not one for {event.name} (see hookEventName)")
    closed(specific, event.specific, f"the hookSpecificOutput of {event.name}")
    context = get(specific, _CONTEXT, str)
    fields: dict[str, Any] = {
        "reason": reason,
        "metadata": answer,
        "context": (context,) if context else (),
    }
    if (given := get(specific, "tool_input", dict)) is not None:
        changed = {**message["tool_input"], **given}
        if changed != message["tool_input"]:
            fields["changed"] = ("input", changed)
    if (output := get(specific, "tool_output", str)) is not None:
        fields["changed"] = ("output", output)
    response = get(specific, "llm_response", dict)
    if response is not None and event.name == "BeforeModel":
        text = _answer_text(response)
        said = "the hook answered instead of the model"
        return Verdict(allow=False, reason=said, metadata=answer, enforced=True, replacement=text)
    if response is not None and response != message["llm_response"]:
        fields["changed"] = ("message", _answer_text(response))
    if (request := get(specific, "llm_request", dict)) is not None:
        changed = {
            name: value
            for name, value in request.items()
            if value != message["llm_request"].get(name)
        }
        if changed:
            fields["changed"] = ("request", changed)
    return Verdict(allow=True, **fields)


def _response(content: Any, error: str) -> Any:
    if is_object(content) and "llmContent" in content:
        return content
    shown = {"llmContent": content, "returnDisplay": content}
    return {**shown, "error": {"message": error}} if error else shown


def _request(subject: dict[str, Any]) -> dict[str, Any]:
    messages = one_of(subject, ("Messages", "messages"), [])
    if not is_array(messages):
        raise WireError("the payload's messages are not a list")
    system = subject.get("SystemPrompt")
    told = [{"role": "system", "content": system}] if system else []
    for message in messages:
        role = one_of(message, ("role", "Role"), "user") if is_object(message) else "user"
        role = {"assistant": "model"}.get(role, role)
        told.append({"role": role, "content": message_text(message)})
    return {"model": one_of(subject, ("Model", "model"), ""), "messages": told, "config": {}}


def _answer(response: Any) -> Any:
    if is_object(response) and "candidates" in response:
        return response
    if is_object(response):
        response = one_of(response, ("Message", "message"), response)
    content = {"role": "model", "parts": [message_text(response)]}
    return {"candidates": [{"content": content, "finishReason": "STOP"}]}


def _answer_text(response: dict[str, Any]) -> str:
    try:
        parts = response["candidates"][0]["content"]["parts"]
        texts = [part if isinstance(part, str) else part["text"] for part in parts]
        return "".join(texts)
    except (KeyError, IndexError, TypeError):
        raise WireError("its llm_response has no candidate with parts of text") from None
