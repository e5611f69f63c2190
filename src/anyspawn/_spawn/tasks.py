"""Tasks and event loops: background tasks, uninterrupted steps, one object for each loop."""

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
"""asyncio tasks without another reference, so that they are not garbage-collected."""


def on_asyncio() -> bool:
    """Whether the running event loop is asyncio's or a replacement, such as uvloop."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and anyio.get_cancelled_exc_class() is asyncio.CancelledError


async def see_through(step: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Run a step of a clean-up, in bounded time, even if the caller is cancelled or interrupted.

    It runs in a separate task, which neither ``asyncio.Task.cancel()`` nor trio's KeyboardInterrupt
    reaches. The step must not raise.
    """

    async def shielded() -> None:
        with anyio.move_on_after(seconds, shield=True):
            await step()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(uninterrupted(shielded))
    except BaseExceptionGroup as group:  # of the interrupt that the caller got meanwhile
        raised: BaseException = group
        while isinstance(raised, BaseExceptionGroup):
            raised = raised.exceptions[0]
        raise raised from None


def uninterrupted(
    step: Callable[[], Coroutine[Any, Any, T]],
) -> Callable[[], Coroutine[Any, Any, T]]:
    """Return a step in which trio raises no KeyboardInterrupt.

    A task does not pass its protection on to the tasks that it starts: each needs its own.
    """
    if on_asyncio():
        return step
    import trio

    async def protected() -> T:
        return await step()

    return trio.lowlevel.enable_ki_protection(protected)


def start_detached(work: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str) -> Any:
    """Start a task that belongs to the running event loop, and return it; it must not raise.

    asyncio may garbage-collect a task without a reference, so the caller keeps one: if the loop is
    closed before the task ends, the task ends with the caller.
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
    ``finally``. So ``if_cancelled`` is called if the task was cancelled.
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
    """Wait for a slot of a limiter, and hold it; give False if the deadline came first."""
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
    """One object for each event loop, made at the first use. A copy or a pickle starts empty.

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
