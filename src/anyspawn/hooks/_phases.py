"""The phases at which hooks run, and the payload of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from anyspawn._registry import nearest
from anyspawn.hooks._events import AgentEvent
from anyspawn.hooks._json import is_mapping, is_pair
from anyspawn.hooks._payloads import (
    PAYLOADS,
    EvalResult,
    ProviderRequest,
    ProviderResponse,
    SessionEvent,
    ToolRequest,
    ToolResponse,
)

__all__ = [
    "AFTER",
    "KINDS",
    "PHASES",
    "Phase",
    "ProviderPhase",
    "SessionPhase",
    "ToolPhase",
    "check_phase",
    "parts",
]

ProviderPhase = Literal["before_call", "after_call"]
ToolPhase = Literal["before_execution", "after_execution"]
SessionPhase = Literal["session_start", "session_update", "session_end"]
EvalPhase = Literal["eval_result"]
Phase = Literal[ProviderPhase, ToolPhase, SessionPhase, EvalPhase, AgentEvent]
"""A phase. Events of agent tools that match none of anyspawn's phases have their own names."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "provider": get_args(ProviderPhase),
    "tool": get_args(ToolPhase),
    "session": get_args(SessionPhase),
    "eval": get_args(EvalPhase),
    "agent": get_args(AgentEvent),
}
"""The phases of each kind of hook."""

PHASES: Mapping[str, str] = {phase: kind for kind, phases in KINDS.items() for phase in phases}
"""The kind of hook that each phase belongs to."""

AFTER = ("after_call", "after_execution")
"""Phases with both a request and a response."""

_CLASSES: Mapping[str, Mapping[str, type[Any]]] = {
    "provider": {"request": ProviderRequest, "response": ProviderResponse},
    "tool": {"request": ToolRequest, "response": ToolResponse},
    "session": {"event": SessionEvent},
    "eval": {"result": EvalResult},
    "agent": {},
}


def check_phase(phase: str) -> str:
    """Return ``phase``, or raise a `ValueError` that lists the known phases."""
    if phase not in PHASES:
        known = [name for kind in ("provider", "tool", "session", "eval") for name in KINDS[kind]]
        raise ValueError(
            f"unknown phase {phase!r}{nearest(str(phase), list(PHASES))} "
            f"(known: {', '.join(known)}, and the events of agent tools)"
        )
    return phase


def parts(phase: str, payload: Any) -> dict[str, Any]:
    """Return a payload's parts under their names on the wire: ``request``, ``response``, ``event``
    or ``result``.

    Raises:
        TypeError: A phase with a request and a response did not get both, or a payload class
            belongs to another phase.
    """
    if phase not in AFTER:
        name = {"session": "event", "agent": "event", "eval": "result"}.get(
            PHASES[phase], "request"
        )
        told: dict[str, Any] = {name: payload}
    elif is_pair(payload):
        told = {"request": payload[0], "response": payload[1]}
    elif is_mapping(payload) and set(payload) == {"request", "response"}:
        told = dict(payload)
    else:
        raise TypeError(
            f"the payload of {phase} must be a tuple (request, response), or a mapping of just "
            f"these two names, not {type(payload).__name__}"
        )
    for name, part in told.items():
        wanted = _CLASSES[PHASES[phase]].get(name)
        if isinstance(part, PAYLOADS) and (wanted is None or not isinstance(part, wanted)):
            instead = f"; give {wanted.__name__}" if wanted else ""
            raise TypeError(
                f"the {name} of {phase} cannot be a {type(part).__name__}{instead}, or any JSON value"
            )
    return told
