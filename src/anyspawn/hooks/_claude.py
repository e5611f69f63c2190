"""Hooks that were written for Claude Code: its command-hook protocol, in both directions. Pure.

As its hooks reference described it in October 2026 (Claude Code 2.1). A hook reads one JSON object
on stdin: the common fields (``session_id``, ``transcript_path``, ``cwd``, ``permission_mode``,
``hook_event_name``) and those of the event (``tool_name``, ``tool_input``, ``tool_use_id``,
``tool_response``). It answers by its exit status (0: go on; 2: stop, with stderr as the reason;
others: an error that stops nothing) or, with status 0, by a JSON object on stdout.

Two things differ here, on purpose. A hook that fails in any other way than these denies, unless its
``on_failure`` says otherwise; there, it would let the action pass. An answer that both allows and
blocks, blocks; one that looks like JSON and is none, or has a verdict where the protocol has no
place for it, is a failure. And what asks a person (``"ask"``), or leaves the question to a later
stage (``"defer"``), denies, as there is nobody to ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from anyspawn._model import Completed
from anyspawn.exceptions import ConfigError
from anyspawn.hooks._decision import Decision
from anyspawn.hooks._payloads import to_wire
from anyspawn.hooks._wire import WireError, decode_object

__all__ = ["BLOCKED", "EVENTS", "decide", "event", "matcher"]

BLOCKED = 2
"""The status by which a hook blocks."""

EVENTS: Mapping[str, str] = {
    "before_execution": "PreToolUse",
    "after_execution": "PostToolUse",
    "session_start": "SessionStart",
    "session_update": "UserPromptSubmit",
    "session_end": "SessionEnd",
}
"""The event of each phase that has one."""

_NAMES_ALONE = re.compile(r"[\w\- ,|]*")
_COSTLY = re.compile(r"\)[*+?{]|\(\?(?!:)|\\[1-9]")
_MANY = re.compile(r"[*+{]")
_MOST_STARS = 3
_LONGEST_NAME = 128
_MISPLACED = ("allow", "permissionDecision", "behavior", "updatedInput")
_FIELDS = {
    "Name": "tool_name",
    "Args": "tool_input",
    "CallID": "tool_use_id",
    "SessionID": "session_id",
}


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a tool's name matches: ``*`` or nothing (all), names
    (``Edit|Write``), or a regex.

    Raises:
        ConfigError: It is no regular expression.
    """
    if pattern in {"", "*"}:
        return lambda _: True
    if _NAMES_ALONE.fullmatch(pattern):
        names = {name.strip() for name in re.split("[|,]", pattern)} - {""}
        if not names:
            raise ConfigError("matcher names no tool; write names such as Edit|Write, or * for all")
        return lambda name: name in names
    if _COSTLY.search(pattern) or any(
        len(_MANY.findall(part)) > _MOST_STARS for part in pattern.split("|")
    ):
        raise ConfigError(
            "matcher could take very long; write it without repeated groups, look-around and back-references, "
            f"and with at most {_MOST_STARS} repetitions a name"
        )
    try:
        found = re.compile(pattern)
    except re.error as exc:
        raise ConfigError(
            f"matcher is neither names such as Edit|Write nor a regular expression: {exc}"
        ) from None
    return lambda name: found.search(name) is not None


def event(phase: str, parts: dict[str, Any], cwd: str) -> dict[str, Any]:
    """Return what the hook reads.

    A payload with ``tool_name`` or ``session_id`` is taken to be in Claude Code's own form, and its
    fields go over as they are.

    Raises:
        WireError: The payload is no object, or names no tool.
    """
    subject = to_wire(parts.get("event", parts.get("request")))
    if not isinstance(subject, dict):
        raise WireError(
            f"the payload is {type(subject).__name__}, where Claude Code's protocol needs an object"
        )
    fields = {_FIELDS[name]: value for name, value in subject.items() if name in _FIELDS}
    if "tool_name" in subject or "session_id" in subject:
        fields.update(subject)
    if phase.endswith("execution"):
        if not isinstance(fields.get("tool_name"), str):
            raise WireError("the payload names no tool: it needs Name (or tool_name), a text")
        if len(fields["tool_name"]) > _LONGEST_NAME:
            raise WireError(
                f"the payload's tool has a name of more than {_LONGEST_NAME} characters"
            )
        fields.setdefault("tool_input", {})
        fields.setdefault("tool_use_id", "")
    if "response" in parts:
        fields["tool_response"] = to_wire(parts["response"])
    if phase == "session_update":
        fields.setdefault("prompt", _last_text(subject.get("Messages")))
    if phase == "session_start":
        fields.setdefault("source", "startup")
    if phase == "session_end":
        fields.setdefault("reason", "other")
    common = {"session_id": "", "transcript_path": "", "cwd": cwd, "permission_mode": "default"}
    return {**common, **fields, "hook_event_name": EVENTS[phase]}


def _last_text(messages: Any) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict):
        last = last.get("content", last.get("Content"))
    return last if isinstance(last, str) else ""


def decide(message: dict[str, Any], completed: Completed) -> Decision:
    """Return what the answer of a hook that exited with 0 or 2 means.

    Args:
        message: What the hook was told.
        completed: What became of it.

    Raises:
        WireError: The answer looks like JSON, and is not what the protocol allows.
    """
    if completed.returncode == BLOCKED:
        reason = completed.stderr.decode(errors="replace").strip()
        return Decision(allow=False, reason=reason or "the hook blocked it, and gave no reason")
    lines = completed.stdout.removeprefix(b"\xef\xbb\xbf").splitlines()
    if not any(line.lstrip().startswith((b"{", b"[")) for line in lines):
        return Decision(allow=True)  # text for the transcript; the protocol gives it no say
    answer = decode_object(completed.stdout.removeprefix(b"\xef\xbb\xbf"))
    for name in _MISPLACED:
        if name in answer:
            raise WireError(
                f"its answer has {name!r} where Claude Code's protocol has no place for it"
            )
    if _get(answer, "continue", bool) is False:
        reason = _get(answer, "stopReason", str) or "the hook stopped the work"
        return Decision(allow=False, reason=reason, metadata=answer)
    specific, general = _specific(message, answer), _general(answer)
    return general if specific is None or general.blocks else specific


def _specific(message: dict[str, Any], answer: dict[str, Any]) -> Decision | None:
    name = message["hook_event_name"]
    specific = _get(answer, "hookSpecificOutput", dict) or {}
    if specific.get("hookEventName", name) != name or "decision" in specific:
        raise WireError(f"its hookSpecificOutput is not one for {name}")
    verdict = _get(specific, "permissionDecision", str)
    changed = specific.get("updatedInput", message.get("tool_input"))
    if verdict is not None and name != "PreToolUse":
        raise WireError(f"its answer has a permissionDecision, which {name} does not know")
    reason = _get(specific, "permissionDecisionReason", str) or ""
    if verdict in {None, "allow"}:
        if name == "PreToolUse" and changed != message.get("tool_input"):
            return Decision(
                allow=False,
                reason="the hook allows only a changed input, its updatedInput",
                metadata=answer,
            )
        return None if verdict is None else Decision(allow=True, reason=reason, metadata=answer)
    if verdict == "deny":
        return Decision(
            allow=False, reason=reason or "the hook denied it, and gave no reason", metadata=answer
        )
    if verdict in {"ask", "defer"}:
        asks = f"the hook would have a person asked ({verdict}): {reason}"
        return Decision(allow=False, reason=asks.rstrip(": "), metadata=answer)
    raise WireError(
        f"its permissionDecision is {verdict[:64]!r}, and none of allow, deny, ask, defer"
    )


def _general(answer: dict[str, Any]) -> Decision:
    verdict = _get(answer, "decision", str)
    reason = _get(answer, "reason", str) or ""
    if verdict == "block":
        return Decision(
            allow=False, reason=reason or "the hook blocked it, and gave no reason", metadata=answer
        )
    if verdict in {None, "approve"}:
        return Decision(allow=True, reason=reason, metadata=answer)
    raise WireError(f"its decision is {verdict[:64]!r}, and neither approve nor block")


def _get(answer: dict[str, Any], name: str, kind: type) -> Any:
    value = answer.get(name)
    if value is not None and not isinstance(value, kind):
        raise WireError(f"{name!r} of its answer is of the wrong type; it must be {kind.__name__}")
    return value
