"""Tasks that belong to the event loop: nobody waits for them, and they are cancelled when it
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from anyspawn._spawn.core import on_asyncio

__all__ = ["start_detached", "start_in_background"]

_tasks: set[object] = set()


def start_detached(work: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str) -> Any:
    """Start a task of the running event loop, and return it; it must not raise.

    On asyncio a task that nobody refers to may be collected, so the caller keeps it: where the loop
    is closed under it, it ends when the caller does.
    """
    if on_asyncio():
        import asyncio

        return asyncio.get_running_loop().create_task(work(*args), name=name)
    import trio

    return trio.lowlevel.spawn_system_task(work, *args, name=name, context=copy_context())


def start_in_background(
    work: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str
) -> None:
    """Start a task of the running event loop; it must not raise."""
    task = start_detached(work, *args, name=name)
    if on_asyncio():
        _tasks.add(task)  # lest it be collected
        task.add_done_callback(_tasks.discard)
