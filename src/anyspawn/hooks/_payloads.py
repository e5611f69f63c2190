"""The reference runtime's payloads. On the wire they have its field names, in PascalCase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from anyspawn.hooks._json import is_mapping, is_object

__all__ = [
    "PAYLOADS",
    "SNAKE_NAMES",
    "EvalResult",
    "ProviderRequest",
    "ProviderResponse",
    "SessionEvent",
    "ToolRequest",
    "ToolResponse",
    "from_wire",
    "to_wire",
    "with_snake_names",
]

_WIRE = "anyspawn.wire"
_OMITTED = "anyspawn.omitted"


def _named(name: str, *, omitted: bool = False) -> dict[str, Any]:
    """Return the metadata of a field.

    Args:
        name: Its name on the wire.
        omitted: Whether the reference omits it if it is empty.
    """
    return {_WIRE: name, _OMITTED: omitted}


@frozen(kw_only=True)
class ProviderRequest:
    """A call of a language model."""

    provider_id: str = field(default="", metadata=_named("ProviderID"))
    model: str = field(default="", metadata=_named("Model"))
    messages: Sequence[Any] = field(factory=tuple, metadata=_named("Messages"))
    system_prompt: str = field(default="", metadata=_named("SystemPrompt"))
    round: int = field(default=0, metadata=_named("Round"))
    metadata: Mapping[str, Any] | None = field(default=None, metadata=_named("Metadata"))
    replacement: str = field(default="", metadata=_named("Replacement"))


@frozen(kw_only=True)
class ProviderResponse:
    """The answer of a language model."""

    provider_id: str = field(default="", metadata=_named("ProviderID"))
    model: str = field(default="", metadata=_named("Model"))
    message: Any = field(default=None, metadata=_named("Message"))
    round: int = field(default=0, metadata=_named("Round"))
    latency_ms: int = field(default=0, metadata=_named("LatencyMs"))


@frozen(kw_only=True)
class ToolRequest:
    """A call of a tool."""

    name: str = field(metadata=_named("Name"))
    args: Any = field(default=None, metadata=_named("Args"))
    call_id: str = field(default="", metadata=_named("CallID"))


@frozen(kw_only=True)
class ToolResponse:
    """The answer of a tool."""

    name: str = field(metadata=_named("Name"))
    call_id: str = field(default="", metadata=_named("CallID"))
    content: Any = field(default=None, metadata=_named("Content"))
    error: str = field(default="", metadata=_named("Error"))
    latency_ms: int = field(default=0, metadata=_named("LatencyMs"))


@frozen(kw_only=True)
class SessionEvent:
    """Something that happened to a session."""

    session_id: str = field(default="", metadata=_named("SessionID"))
    conversation_id: str = field(default="", metadata=_named("ConversationID"))
    messages: Sequence[Any] = field(factory=tuple, metadata=_named("Messages"))
    turn_index: int = field(default=0, metadata=_named("TurnIndex"))
    metadata: Mapping[str, Any] | None = field(default=None, metadata=_named("Metadata"))


def _optional(name: str, default: Any = None) -> Any:
    return field(default=default, metadata=_named(name, omitted=True))


@frozen(kw_only=True)
class EvalResult:
    """The outcome of an evaluation; the wire uses these names. Empty fields are omitted, except
    ``eval_id``, ``type`` and ``duration_ms``.
    """

    eval_id: str = field(metadata=_named("eval_id"))
    type: str = field(default="", metadata=_named("type"))
    kind: str = _optional("kind", "")
    passed: bool | None = _optional("passed")
    score: float | None = _optional("score")
    value: Any = field(default=None, metadata=_named("value", omitted=True))
    metric_value: float | None = _optional("metric_value")
    explanation: str = _optional("explanation", "")
    duration_ms: int = field(default=0, metadata=_named("duration_ms"))
    error: str = _optional("error", "")
    message: str = _optional("message", "")
    details: Mapping[str, Any] | None = _optional("details")
    violations: Sequence[Mapping[str, Any]] = _optional("violations", ())
    skipped: bool = _optional("skipped", default=False)
    skip_reason: str = _optional("skip_reason", "")
    session_id: str = _optional("session_id", "")
    turn_index: int = _optional("turn_index", 0)


PAYLOADS = (ProviderRequest, ProviderResponse, ToolRequest, ToolResponse, SessionEvent, EvalResult)
_EMPTY: tuple[Any, ...] = (None, "", False, 0, (), [], {})


def _left_out(attribute: attrs.Attribute[Any], value: Any) -> bool:
    if not attribute.metadata[_OMITTED]:
        return False
    if attribute.default is None:  # a pointer there: false and 0 are not empty
        return value is None or (attribute.name == "details" and not value)
    return any(value is empty or value == empty for empty in _EMPTY)


SNAKE_NAMES: Mapping[str, str] = {
    attribute.metadata[_WIRE]: attribute.name
    for cls in PAYLOADS[:-1]
    for attribute in attrs.fields(cls)
}
"""The snake_case name of each PascalCase name that a payload class has."""


def with_snake_names(value: Any) -> Any:
    """Return an object with each name of the reference also in snake_case."""
    if not is_object(value):
        return value
    also = {
        snake: value[pascal]
        for pascal, snake in SNAKE_NAMES.items()
        if pascal in value and snake not in value
    }
    return {**value, **also}


def from_wire(cls: type[Any], value: Any) -> Any:
    """Return an instance of a payload class from its object on the wire.

    Raises:
        TypeError: The value is not an object, or has other names or types than the class.
    """
    if not is_mapping(value):
        raise TypeError(f"it is {type(value).__name__}, not an object")
    fields = {attribute.metadata[_WIRE]: attribute for attribute in attrs.fields(cls)}
    for name in value:
        if name not in fields:
            raise TypeError(f"{cls.__name__} has no {name[:64]!r}")
    found = {fields[name].name: item for name, item in value.items()}
    for attribute in attrs.fields(cls):
        plain = {"str": str, "int": int}.get(str(attribute.type))
        item = found.get(attribute.name, attribute.default)
        if plain is not None and (not isinstance(item, plain) or isinstance(item, bool)):
            raise TypeError(f"its {attribute.metadata[_WIRE]} must be {plain.__name__}")
    return cls(**found)


def to_wire(value: Any) -> Any:
    """Return ``value`` with every payload class in it replaced by its object on the wire.

    Raises:
        TypeError: A mapping's key is not a str: JSON has no other keys, and two could become one.
    """
    if isinstance(value, PAYLOADS):
        return {
            attribute.metadata[_WIRE]: to_wire(getattr(value, attribute.name))
            for attribute in attrs.fields(type(value))
            if not _left_out(attribute, getattr(value, attribute.name))
        }
    if is_mapping(value):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(
                    f"an object's key is of type {type(name).__name__}, where JSON has str alone"
                )
        return {name: to_wire(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items: list[Any] = list(value)
        return [to_wire(item) for item in items]
    return value
