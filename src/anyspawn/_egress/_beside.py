"""Tasks beside a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio

__all__ = ["beside"]


@asynccontextmanager
async def beside(
    *tasks: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncIterator[anyio.CancelScope]:
    """Run tasks as long as the block lasts; give a function that cancels the block and them.

    An exception of the block is raised as it is, not in a group.
    """
    raised: BaseException | None = None
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(task)
        try:
            yield group.cancel_scope
        except (GeneratorExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as exc:
            raised = exc
        group.cancel_scope.cancel()
    if raised is not None:
        try:
            raise raised
        finally:
            raised = None  # no cycle of frames
