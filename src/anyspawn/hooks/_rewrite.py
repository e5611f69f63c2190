"""Applies a hook's change to a payload.

Pure. The result has the type of the original: a payload class stays one, a mapping keeps the
spelling of its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from anyspawn.hooks._json import is_array, is_mapping, is_object
from anyspawn.hooks._payloads import (
    PAYLOADS,
    SNAKE_NAMES,
    ProviderRequest,
    ProviderResponse,
    ToolRequest,
    ToolResponse,
    from_wire,
    to_wire,
)
from anyspawn.hooks._phases import AFTER
from anyspawn.hooks._wire import WireError, kind_of

__all__ = ["changed_places", "joined", "rewritten"]

_ARGS = ("Args", "tool_input", "toolArgs")


def rewritten(
    phase: str, told: Mapping[str, Any], part: str, value: Any, *, snake: bool = False
) -> Any:
    """Return the payload, or after a call the response, with a part of it replaced; ``None`` if
    nothing changed.

    Args:
        phase: The moment.
        told: The payload's parts, as `parts` gives them.
        part: Which part: ``payload`` for all of it, or as `Verdict.changed` names it.
        value: The hook's new value.
        snake: Whether the hook got snake_case names too.

    Raises:
        WireError: It does not fit the phase.
    """
    name = _changed_part(phase, told)
    original = told[name]
    if part == "input":
        name = "event" if "event" in told else "request"
        return _with_args(told[name], value)
    if part == "output":
        return _with_content(original, value)
    if part == "message":
        return _with_message(original, value)
    if part == "request":
        return _with_request(original, value)
    before = to_wire(original)
    if snake:
        value = _without_snake(value, before)
    return None if value == before else _whole(original, before, value)


def joined(phase: str, payload: Any, changed: Any) -> Any:
    """Return the payload that the next hook is asked about."""
    if phase not in AFTER:
        return changed
    request = payload["request"] if is_mapping(payload) else payload[0]
    return (request, changed)


def _changed_part(phase: str, told: Mapping[str, Any]) -> str:
    if phase in AFTER:
        return "response"
    return "event" if "event" in told else "request"


def _whole(original: Any, before: Any, value: Any) -> Any:
    if isinstance(original, PAYLOADS):
        try:
            return from_wire(type(original), value)
        except TypeError as exc:
            raise WireError(f"its payload does not fit: {exc}") from None
    if kind_of(value) != kind_of(before):
        raise WireError(f"its payload is {kind_of(value)}, where it was {kind_of(before)}")
    if is_object(value):
        for name in ("Name", "tool_name"):
            if isinstance(before.get(name), str) and not isinstance(value.get(name), str):
                raise WireError(f"its payload has no {name}")
    return value


def _without_snake(value: Any, before: Any) -> Any:
    if not is_object(value) or not is_object(before):
        return value
    value = dict(value)
    for pascal, snake in SNAKE_NAMES.items():
        if pascal in before and snake in value and snake not in before:
            said = value.pop(snake)
            if said != before[pascal]:
                if value.get(pascal, before[pascal]) not in (before[pascal], said):
                    raise WireError(f"its payload has {pascal} and {snake}, and they differ")
                value[pascal] = said
            value.setdefault(pascal, said)
    return value


def _with_args(original: Any, args: Any) -> Any:
    if isinstance(original, ToolRequest):
        return attrs.evolve(original, args=args)
    spelt = [name for name in _ARGS if name in original] or ["Args"]
    return {**original, **dict.fromkeys(spelt, args)}


def _with_content(original: Any, content: Any) -> Any:
    if isinstance(original, ToolResponse):
        fields = {"content": content}
        if isinstance(original.content, str) and is_object(content) and "stdout" in content:
            fields = {"content": content["stdout"], "error": content.get("stderr") or ""}
        return attrs.evolve(original, **fields)
    if is_mapping(original) and "Content" in original:
        return {**original, "Content": content}
    return content


def _with_message(original: Any, text: str) -> Any:
    if isinstance(original, ProviderResponse):
        return attrs.evolve(original, message=_said(original.message, text))
    if is_mapping(original) and "candidates" in original:
        content = {"role": "model", "parts": [text]}
        return {**original, "candidates": [{"content": content, "finishReason": "STOP"}]}
    if is_mapping(original):
        for name in ("Message", "message"):
            if name in original:
                return {**original, name: _said(original[name], text)}
    return _said(original, text)


def _said(message: Any, text: str) -> Any:
    if message is None or isinstance(message, str):
        return text
    if is_mapping(message):
        for name in ("content", "Content"):
            if isinstance(message.get(name), str):
                return {**message, name: text}
    raise WireError("its llm_response cannot replace a message of this form")


def _with_request(original: Any, changed: Mapping[str, Any]) -> Any:
    unknown = changed.keys() - {"model", "messages"}
    if unknown:
        raise WireError(f"its llm_request changes {min(unknown)!r}, which anyspawn cannot change")
    fields: dict[str, Any] = {}
    if "model" in changed:
        fields["model"] = changed["model"]
    if "messages" in changed:
        _plain(to_wire(original).get("Messages"))
        fields |= _messages(changed["messages"], _spelling(original))
    if isinstance(original, ProviderRequest):
        return attrs.evolve(original, **fields)
    pascal = {"model": "Model", "messages": "Messages", "system_prompt": "SystemPrompt"}
    own = not any(name in original for name in pascal.values())
    return {**original, **{name if own else pascal[name]: item for name, item in fields.items()}}


def _plain(messages: Any) -> None:
    """Refuse messages of which the hook got only a part: replacing them would lose the rest."""
    found: list[Any] = messages or []
    for message in found:
        texts = is_object(message) and all(isinstance(v, str) for v in message.values())
        names: set[str] = {name.lower() for name in message} if texts else set()
        if not texts or names - {"role", "content"}:
            raise WireError("its llm_request replaces messages that have more than a text")


def _spelling(original: Any) -> tuple[str, str]:
    messages: list[Any] = to_wire(original).get("Messages") or [{}]
    first: dict[str, Any] = messages[0] if is_object(messages[0]) else {}
    return ("Role", "Content") if "Content" in first else ("role", "content")


def _messages(told: Any, names: tuple[str, str]) -> dict[str, Any]:
    texts = is_array(told) and all(
        is_object(m) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in told
    )
    if not texts:
        raise WireError("the messages of its llm_request are not a list of role and content")
    role, content = names
    system = [m["content"] for m in told if m["role"] == "system"]
    rest = [
        {role: {"model": "assistant"}.get(m["role"], m["role"]), content: m["content"]}
        for m in told
        if m["role"] != "system"
    ]
    return {"messages": rest, **({"system_prompt": "\n".join(system)} if system else {})}


def changed_places(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Give the paths of the members that differ in two JSON values, such as ``Args.path``; an array
    is one value.
    """
    if is_object(before) and is_object(after):
        for name in dict.fromkeys((*before, *after)):
            if name not in before or name not in after:
                yield f"{at}{name}"
            else:
                yield from changed_places(before[name], after[name], f"{at}{name}.")
    elif before != after:
        yield at.removesuffix(".")
