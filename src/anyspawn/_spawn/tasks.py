"""Tasks and event loops: tasks beside, steps that nothing interrupts, one thing for each loop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio

__all__ = [
    "PerLoop",
    "on_asyncio",
    "place_within",
    "see_through",
    "start_detached",
    "start_in_background",
    "uninterrupted",
]

T = TypeVar("T")
_kept: set[object] = set()
"""asyncio's tasks that nobody else refers to, lest they be collected."""


def on_asyncio() -> bool:
    """Whether the running event loop is asyncio's, or speaks its protocol, as uvloop does."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and anyio.get_cancelled_exc_class() is asyncio.CancelledError


async def see_through(step: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Take a step of a clean-up, in bounded time, whatever cancels or interrupts the caller.

    It runs in a task of its own, which neither ``asyncio.Task.cancel()`` nor trio's
    KeyboardInterrupt reaches. The step must not raise.
    """

    async def shielded() -> None:
        with anyio.move_on_after(seconds, shield=True):
            await step()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(uninterrupted(shielded))
    except BaseExceptionGroup as group:  # of the one interrupt that struck the caller meanwhile
        raised: BaseException = group
        while isinstance(raised, BaseExceptionGroup):
            raised = raised.exceptions[0]
        raise raised from None


def uninterrupted(
    step: Callable[[], Coroutine[Any, Any, T]],
) -> Callable[[], Coroutine[Any, Any, T]]:
    """Return a step in which trio raises no KeyboardInterrupt.

    A task does not pass its protection on to those that it starts: each needs its own.
    """
    if on_asyncio():
        return step
    import trio

    async def protected() -> T:
        return await step()

    return trio.lowlevel.enable_ki_protection(protected)


def start_detached(work: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str) -> Any:
    """Start a task that belongs to the running event loop, and return it; it must not raise.

    On asyncio a task that nobody refers to may be collected, so the caller keeps it: where the
    loop is closed under it, it ends when the caller does.
    """
    if on_asyncio():
        import asyncio

        return asyncio.get_running_loop().create_task(work(*args), name=name)
    import trio

    return trio.lowlevel.spawn_system_task(work, *args, name=name, context=copy_context())


def start_in_background(
    work: Callable[..., Coroutine[Any, Any, None]],
    *args: object,
    name: str,
    if_cancelled: Callable[[], None] = lambda: None,
) -> None:
    """Start a task that belongs to the running event loop, which keeps it; it must not raise.

    asyncio runs nothing of a task that is cancelled before its first step, not even its
    ``finally``: ``if_cancelled`` is called where the task was cancelled.
    """
    task = start_detached(work, *args, name=name)
    if on_asyncio():

        def over(done: Any) -> None:
            _kept.discard(done)
            if done.cancelled():
                if_cancelled()

        _kept.add(task)
        task.add_done_callback(over)


@asynccontextmanager
async def place_within(limiter: anyio.CapacityLimiter, deadline: float) -> AsyncIterator[bool]:
    """Wait for one of a limiter's places, and hold it; give False where the deadline came first."""
    place = object()
    with anyio.CancelScope(deadline=deadline) as scope:
        await limiter.acquire_on_behalf_of(place)
    if scope.cancelled_caught:
        yield False
        return
    try:
        yield True
    finally:
        limiter.release_on_behalf_of(place)


class PerLoop(Generic[T]):
    """One thing for each event loop, made when it is first asked for. A copy or a pickle has none.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._things: WeakKeyDictionary[Any, T] = WeakKeyDictionary()

    def get(self, *args: Any) -> T:
        """Return the running loop's."""
        loop = anyio.lowlevel.current_token().native_token
        if loop not in self._things:
            self._things[loop] = self._make(*args)
        return self._things[loop]

    def pop(self) -> T | None:
        """Return the running loop's, if there is one, and forget it."""
        return self._things.pop(anyio.lowlevel.current_token().native_token, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return PerLoop, (self._make,)
