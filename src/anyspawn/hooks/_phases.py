"""The moments at which hooks run, and what each is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyspawn._registry import nearest

__all__ = ["KINDS", "PHASES", "check_phase", "parts"]

KINDS: Mapping[str, tuple[str, ...]] = {
    "provider": ("before_call", "after_call"),
    "tool": ("before_execution", "after_execution"),
    "session": ("session_start", "session_update", "session_end"),
    "eval": ("eval_result",),
}
"""The phases of each kind of hook."""

PHASES: Mapping[str, str] = {phase: kind for kind, phases in KINDS.items() for phase in phases}
"""The kind of hook that each phase belongs to."""

_AFTER = ("after_call", "after_execution")


def check_phase(phase: str) -> str:
    """Return ``phase``, or raise a `ValueError` that lists the phases there are."""
    if phase not in PHASES:
        raise ValueError(
            f"unknown phase {phase!r}{nearest(str(phase), list(PHASES))} (known: {', '.join(PHASES)})"
        )
    return phase


def parts(phase: str, payload: Any) -> dict[str, Any]:
    """Return a payload's parts under their names on the wire: ``request``, ``response``, ``event``
    or ``result``.

    Raises:
        TypeError: A phase that has a request and a response was not given both.
    """
    if phase in _AFTER:
        if isinstance(payload, tuple) and len(payload) == 2:
            return {"request": payload[0], "response": payload[1]}
        if isinstance(payload, Mapping) and set(payload) == {"request", "response"}:
            return dict(payload)
        raise TypeError(
            f"the payload of {phase} must be a tuple (request, response), or a mapping of just these two names, "
            f"not {type(payload).__name__}"
        )
    return {{"session": "event", "eval": "result"}.get(PHASES[phase], "request"): payload}
