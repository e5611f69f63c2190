"""What a hook decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["Decision"]


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(value)


@frozen
class Decision:
    """Whether the guarded action may go on.

    Args:
        allow: It may.
        reason: Why not, or what is to be known.
        metadata: Whatever the hook adds.
        enforced: The hook has already applied its enforcement: the pipeline goes on, and records
            it.
        hook: The name of the hook that decided; empty where none had anything to say.
        results: From `run_hooks`: the decisions of all filter hooks that finished, by name, in
            declaration order.
    """

    allow: bool
    reason: str = field(default="", kw_only=True)
    metadata: Mapping[str, Any] = field(factory=dict, kw_only=True, converter=_copy, hash=False)
    enforced: bool = field(default=False, kw_only=True)
    hook: str = field(default="", kw_only=True)
    results: Mapping[str, Decision] = field(factory=dict, kw_only=True, converter=_copy, hash=False)

    @property
    def blocks(self) -> bool:
        """Whether the pipeline has to stop, as it is neither allowed nor enforced already."""
        return not (self.allow or self.enforced)
