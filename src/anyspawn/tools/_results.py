"""The answers of tools, evaluators and selectors, read strictly. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import frozen

from anyspawn.hooks._json import is_array, is_object
from anyspawn.hooks._wire import WireError, kind_of

__all__ = ["Pending", "Score", "Selection", "ToolResult", "score", "selection", "tool_result"]

_SHOWN = 64


@frozen(kw_only=True)
class Pending:
    """A tool has started, and its result will arrive separately.

    Args:
        reason: Why, as a word such as ``approval_required``.
        message: The same for people.
    """

    reason: str = ""
    message: str = ""


@frozen(kw_only=True)
class ToolResult:
    """The answer of a tool: a result, an error, or a pending result.

    Args:
        result: The result, any JSON value; also ``None`` if there is no result.
        error: The tool's own error message; ``None`` without an error.
        pending: Set if the result comes later; otherwise ``None``.
    """

    result: Any = None
    error: str | None = None
    pending: Pending | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a result; it can be ``None``."""
        return self.error is None and self.pending is None


@frozen(kw_only=True)
class Selection:
    """The choice of a selector.

    Args:
        selected: The ids of the chosen candidates, each once, in the selector's order. reason: Why;
            empty if the selector gave no reason.
    """

    selected: tuple[str, ...]
    reason: str = ""


@frozen(kw_only=True)
class Score:
    """The answer of an evaluator.

    Args:
        score: The score.
        detail: Why; empty if the evaluator gave no reason.
        data: Data that the evaluator adds.
    """

    score: float
    detail: str
    data: dict[str, Any] | None


def _object(answer: Any) -> dict[str, Any]:
    if not is_object(answer):
        raise WireError(f"its answer is {kind_of(answer)}, not a JSON object")
    return answer


def tool_result(answer: Any) -> ToolResult:
    """Read a tool's answer.

    Raises:
        WireError: It does not have exactly one of ``result``, ``error`` and ``pending``, or one has
            the wrong type.
    """
    answer = _object(answer)
    error, pending = answer.get("error"), answer.get("pending")
    if not isinstance(error, (str, type(None))):
        raise WireError(f"'error' of its answer is {kind_of(error)}, not a string")
    if pending is not None and not is_object(pending):
        raise WireError(f"'pending' of its answer is {kind_of(pending)}, not an object")
    said = [
        name
        for name, there in (
            ("result", answer.get("result") is not None),
            ("error", bool(error)),
            ("pending", pending is not None),
        )
        if there
    ]
    if len(said) > 1:
        raise WireError(f"its answer has {' and '.join(said)}, of which only one is allowed")
    if said == ["error"]:
        return ToolResult(error=error)
    if pending is not None:
        return ToolResult(
            pending=Pending(reason=_text(pending, "reason"), message=_text(pending, "message"))
        )
    if "result" not in answer:
        raise WireError("its answer has none of 'result', 'error' and 'pending'")
    return ToolResult(result=answer["result"])


def score(answer: Any) -> Score:
    """Read an evaluator's answer.

    Raises:
        WireError: ``score`` is missing or not a number, or another field has the wrong type.
    """
    answer = _object(answer)
    if "score" not in answer:
        raise WireError("its answer has no 'score'")
    number, data = answer["score"], answer.get("data")
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise WireError(f"'score' of its answer is {kind_of(number)}, not a number")
    if data is not None and not is_object(data):
        raise WireError(f"'data' of its answer is {kind_of(data)}, not an object")
    try:
        return Score(score=float(number), detail=_text(answer, "detail"), data=data)
    except OverflowError:
        raise WireError("'score' of its answer is too large") from None


def selection(answer: Any, known: Collection[str]) -> Selection:
    """Read a selector's answer.

    Args:
        answer: The answer.
        known: The ids of the candidates.

    Raises:
        WireError: ``selected`` is missing or not a list of texts, or names an unknown candidate.
    """
    answer = _object(answer)
    if "selected" not in answer:
        raise WireError("its answer has no 'selected'")
    chosen = answer["selected"]
    if not is_array(chosen):
        raise WireError(f"'selected' of its answer is {kind_of(chosen)}, not an array")
    for name in chosen:
        if not isinstance(name, str):
            raise WireError(f"'selected' of its answer holds {kind_of(name)}, not only strings")
        if name not in known:
            raise WireError(
                f"'selected' of its answer names {name[:_SHOWN]!r}, which is not a candidate"
            )
    return Selection(selected=tuple(dict.fromkeys(chosen)), reason=_text(answer, "reason"))


def _text(answer: dict[str, Any], name: str) -> str:
    text = answer.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise WireError(f"{name!r} of its answer is {kind_of(text)}, not a string")
    return text
