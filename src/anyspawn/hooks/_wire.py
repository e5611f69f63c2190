"""The wire format of exec hooks: one JSON object in, one JSON object out. It reads strictly,
because a denial can depend on it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from anyspawn._model import Completed
from anyspawn.hooks._decision import Decision
from anyspawn.hooks._json import is_array, is_object
from anyspawn.hooks._payloads import to_wire, with_snake_names
from anyspawn.hooks._phases import PHASES

__all__ = [
    "WireError",
    "check_whole",
    "decision_of",
    "decode_decision",
    "decode_object",
    "encode",
    "envelope",
    "kind_of",
]

_DEEPEST = 64
_SHOWN = 64
_KNOWN = ("allow", "reason", "enforced", "metadata", "payload", "ack")
_VERDICTS = frozenset(
    [
        "allow",
        "allowed",
        "approve",
        "approved",
        "ask",
        "behavior",
        "block",
        "blocked",
        "continue",
        "decision",
        "denied",
        "deny",
        "enforced",
        "forbid",
        "ok",
        "permission",
        "permissiondecision",
        "permit",
        "reject",
        "rejected",
        "stop",
        "verdict",
        "hookspecificoutput",
        "updatedinput",
        "updatedtooloutput",
        "modifiedargs",
    ]
)
_SEPARATORS = re.compile(r"[\W_]+")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")


class WireError(ValueError):
    """A message, sent or received, is not valid; the error says why."""


def encode(payload: Any) -> bytes:
    """Return a payload as JSON.

    Raises:
        WireError: JSON cannot represent it: a value of another type, NaN, a circular reference, or
            a lone surrogate.
    """
    try:
        return json.dumps(
            to_wire(payload), allow_nan=False, ensure_ascii=False, separators=(",", ":")
        ).encode()
    except UnicodeEncodeError:
        raise WireError(
            "the payload has a lone surrogate in a text, which JSON cannot hold in UTF-8"
        ) from None
    except (TypeError, ValueError, RecursionError) as exc:
        what = (
            "it is nested too deeply, or in a circle"
            if isinstance(exc, RecursionError)
            else str(exc)
        )
        raise WireError(f"the payload cannot be written as JSON: {what}") from None


def envelope(phase: str, parts: Mapping[str, Any], *, snake: bool = False) -> Any:
    """Return the message to a hook: its kind, the phase and the payload's parts. An eval hook gets
    only the result.

    Args:
        phase: The phase. parts: The payload's parts. snake: Whether to add the reference's names in
            snake_case.
    """
    if "result" in parts:
        return parts["result"]
    told = (
        {name: with_snake_names(to_wire(part)) for name, part in parts.items()} if snake else parts
    )
    return {"hook": PHASES[phase], "phase": phase, **told}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            shown = repr(name) if len(name) <= _SHOWN else "of an object"
            raise WireError(f"key {shown} comes twice in its answer")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise WireError(f"its answer has {name}, which is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise WireError("its answer has a number too large for any computer")
    return number


def _depth(text: str) -> int:
    """Return how deeply the brackets of a JSON text nest."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in "{[":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def check_whole(completed: Completed) -> None:
    """Check that a program's stdout, which holds its answer, has come to its end.

    Raises:
        WireError: It may go on.
    """
    if completed.output_incomplete or completed.stdout_total > len(completed.stdout):
        raise WireError(
            "its answer may be incomplete, because a process that it started held its output open"
        )


def decode_object(data: bytes) -> dict[str, Any]:
    """Return ``data`` decoded as exactly one JSON object.

    Raises:
        WireError: It is empty, not UTF-8, not JSON, not an object, more than one value, nested too
            deeply, or has a key twice.
    """
    if not data.strip():
        raise WireError("it answered nothing on stdout")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise WireError(f"its answer is not UTF-8 (byte {exc.start})") from None
    try:
        answer = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except WireError:
        raise
    except json.JSONDecodeError as exc:
        raise WireError(
            f"its answer is not one JSON object: {exc.msg} at line {exc.lineno}, column {exc.colno}"
        ) from None
    except RecursionError:
        raise WireError(f"its answer is nested more than {_DEEPEST} levels deep") from None
    except ValueError:  # an integer of more digits than Python converts
        raise WireError("its answer has a number too large for any computer") from None
    if not is_object(answer):
        raise WireError(f"its answer is {kind_of(answer)}, not a JSON object")
    if text.count("{") + text.count("[") > _DEEPEST and _depth(text) > _DEEPEST:
        raise WireError(f"its answer is nested more than {_DEEPEST} levels deep")
    return _whole(answer) if _ESCAPED_SURROGATE.search(text) else answer


def _whole(value: Any) -> Any:
    """Return a value with U+FFFD for each lone surrogate, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if is_array(value):
        return [_whole(item) for item in value]
    if is_object(value):
        whole = {_whole(name): _whole(item) for name, item in value.items()}
        if len(whole) < len(value):
            raise WireError("two keys of its answer differ by lone surrogates alone")
        return whole
    return value


def kind_of(value: Any) -> str:
    """Return the JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return kinds[type(value)]


def decode_decision(data: bytes) -> Decision:
    """Return ``data`` decoded as a verdict.

    Raises:
        WireError: It is not an object (see `decode_object`), ``allow`` is missing or not a boolean,
            another field has the wrong type, or a verdict has another name.
    """
    return decision_of(decode_object(data))


def decision_of(answer: Any) -> Decision:
    """Return a JSON value read as a verdict.

    Raises:
        WireError: As for `decode_decision`.
    """
    if not is_object(answer):
        raise WireError(f"its answer is {kind_of(answer)}, not a JSON object")
    if "allow" not in answer:
        raise WireError("its answer has no 'allow'")
    for name in answer:
        if name not in _KNOWN and _SEPARATORS.sub("", name).lower() in _VERDICTS:
            raise WireError(f"its answer has {name[:_SHOWN]!r}, which is not of this protocol")
    wanted = {"allow": bool, "reason": str, "enforced": bool, "metadata": dict}
    for name, kind in wanted.items():
        value = answer.get(name)
        if value is None and name != "allow":
            continue
        if not isinstance(value, kind):
            raise WireError(f"{name!r} of its answer is {kind_of(value)}, not {kind_of(kind())}")
    metadata: dict[str, Any] = answer.get("metadata") or {}
    enforced = bool(answer.get("enforced"))
    replacement = metadata.get("replacement")
    stands_in = enforced and not answer["allow"] and isinstance(replacement, str)
    return Decision(
        answer["allow"],
        reason=answer.get("reason") or "",
        metadata=metadata,
        enforced=enforced,
        replacement=replacement if stands_in else None,
        payload=answer.get("payload"),
    )
