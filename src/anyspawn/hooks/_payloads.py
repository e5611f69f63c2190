"""The reference runtime's payloads. On the wire their names are those of its fields, in
PascalCase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

__all__ = [
    "EvalResult",
    "ProviderRequest",
    "ProviderResponse",
    "SessionEvent",
    "ToolRequest",
    "ToolResponse",
    "to_wire",
]

_WIRE = "anyspawn.wire"


def _named(name: str) -> dict[str, str]:
    return {_WIRE: name}


@frozen(kw_only=True)
class ProviderRequest:
    """A call of a language model."""

    provider_id: str = field(default="", metadata=_named("ProviderID"))
    model: str = field(default="", metadata=_named("Model"))
    messages: Sequence[Any] = field(factory=tuple, metadata=_named("Messages"))
    system_prompt: str = field(default="", metadata=_named("SystemPrompt"))
    round: int = field(default=0, metadata=_named("Round"))
    metadata: Mapping[str, Any] | None = field(default=None, metadata=_named("Metadata"))
    replacement: Any = field(default=None, metadata=_named("Replacement"))


@frozen(kw_only=True)
class ProviderResponse:
    """What the language model answered."""

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
    """What the tool answered."""

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


@frozen(kw_only=True)
class EvalResult:
    """The outcome of an evaluation; its names on the wire are these."""

    eval_id: str = field(metadata=_named("eval_id"))
    type: str = field(default="", metadata=_named("type"))
    score: float | None = field(default=None, metadata=_named("score"))
    passed: bool | None = field(default=None, metadata=_named("passed"))
    duration_ms: int = field(default=0, metadata=_named("duration_ms"))
    explanation: str = field(default="", metadata=_named("explanation"))
    details: Mapping[str, Any] | None = field(default=None, metadata=_named("details"))


_PAYLOADS = (ProviderRequest, ProviderResponse, ToolRequest, ToolResponse, SessionEvent, EvalResult)


def to_wire(value: Any) -> Any:
    """Return ``value`` with every payload class in it replaced by its object on the wire; anything
    else as it is.

    Raises:
        TypeError: A mapping's key is no str: JSON knows no other, and two keys might turn into one.
    """
    if isinstance(value, _PAYLOADS):
        return {
            attribute.metadata[_WIRE]: to_wire(getattr(value, attribute.name))
            for attribute in attrs.fields(type(value))
        }
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(
                    f"an object's key is of type {type(name).__name__}, where JSON has str alone"
                )
        return {name: to_wire(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_wire(item) for item in value]
    return value
