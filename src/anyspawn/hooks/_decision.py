"""The decision of a hook."""

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
    """Whether the guarded action can continue. Use `blocks`, or call `check`.

    Args:
        allow: The hook allows it.
        reason: Why not, or a note for the caller.
        metadata: Data that the hook adds.
        enforced: The hook has already applied its enforcement. After a call or a tool, the pipeline
            continues and records it. Before one, a denial still blocks.
        hook: The name of the hook that decided; empty if none did.
        payload: The payload as the hooks changed it; ``None`` if they did not. After a call or a
            tool, this is the response. It has the type of the payload that was passed in.
        replacement: With an enforced denial, the text that replaces the model's answer or the
            tool's result, if the hook gave one.
        context: Texts for the model that hooks of agent tools gave, in declaration order.
        phase: The phase of the decision.
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
        """Return the decision itself, or raise `DeniedError` if it blocks."""
        if self.blocks:
            raise DeniedError(self)
        return self

    def __bool__(self) -> Never:
        raise TypeError(
            "a Decision is neither true nor false; ask decision.blocks, or call decision.check()"
        )
