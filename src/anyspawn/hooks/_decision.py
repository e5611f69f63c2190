"""What a hook decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Never, Self

from attrs import field, frozen

from anyspawn.exceptions import AnyspawnError

__all__ = ["Decision", "DeniedError"]

_AFTER = ("after_call", "after_execution")


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(value)


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


class DeniedError(AnyspawnError):
    """A decision blocks; `Decision.check` raises it.

    Attributes:
        decision: The decision.
    """

    def __init__(self, decision: Decision) -> None:
        who = f"hook {decision.hook!r}" if decision.hook else "a hook"
        super().__init__(f"denied by {who}: {decision.reason or 'it gave no reason'}")
        self.decision = decision


@frozen
class Decision:
    """Whether the guarded action may go on. Ask `blocks`, or call `check`.

    Args:
        allow: The hook allows it.
        reason: Why not, or what the caller should know.
        metadata: Whatever the hook adds.
        enforced: The hook has already applied its enforcement. After a call or a tool the pipeline
            goes on and records it; before one, a denial blocks all the same.
        hook: The name of the hook that decided; empty where none had anything to say.
        payload: What the hooks made of the payload; ``None`` where they left it alone. After a call
            or a tool this is the response. It is of the same kind as what was given.
        replacement: With an enforced denial, the text that stands in for the model's answer or the
            tool's result, where the hook gave one.
        context: Texts for the model that hooks of agent tools gave, in declaration order.
        phase: The moment at which it was decided.
        results: From `run_hooks`: the decisions of all filter hooks that finished, by name, in
            declaration order.
    """

    allow: bool
    reason: str = field(default="", kw_only=True)
    metadata: Mapping[str, Any] = field(
        factory=dict[str, Any], kw_only=True, converter=_copy, hash=False
    )
    enforced: bool = field(default=False, kw_only=True)
    hook: str = field(default="", kw_only=True)
    payload: Any = field(default=None, kw_only=True, hash=False)
    replacement: str | None = field(default=None, kw_only=True)
    context: tuple[str, ...] = field(default=(), kw_only=True, converter=_texts)
    phase: str = field(default="", kw_only=True, eq=False)
    results: Mapping[str, Decision] = field(
        factory=dict[str, Any], kw_only=True, converter=_copy, hash=False
    )

    @property
    def blocks(self) -> bool:
        """Whether the pipeline must stop here."""
        return not (self.allow or (self.enforced and self.phase in _AFTER))

    def check(self) -> Self:
        """Return the decision itself, or raise `DeniedError` where it blocks."""
        if self.blocks:
            raise DeniedError(self)
        return self

    def __bool__(self) -> Never:
        raise TypeError(
            "a Decision is neither true nor false; ask decision.blocks, or call decision.check()"
        )
