"""A live process or a box without a block: one task starts it, and another can close it.

A separate task enters and leaves its context manager, because cancel scopes belong to one task.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

import anyio

from anyspawn._spawn.tasks import see_through, start_in_background
from anyspawn._telemetry import warn
from anyspawn.exceptions import TransportError

__all__ = ["Held"]


class Closable(Protocol):
    """An object with a function that closes it."""

    _close: Callable[[], Awaitable[None]]


T = TypeVar("T", bound=Closable)


class Held(Generic[T]):
    """Keeps a context manager open until it is released.

    Args:
        opening: The context manager.
        program: What it is called in messages.
    """

    def __init__(self, opening: AbstractAsyncContextManager[T], program: str) -> None:
        self._opening = opening
        self._program = program
        self._process: T | None = None
        self._raised: BaseException | None = None
        self._opened, self._wanted_no_more, self._over = anyio.Event(), anyio.Event(), anyio.Event()
        self._scope = anyio.CancelScope()

    async def start(self) -> T:
        """Enter the context, and return its value; if cancelled meanwhile, leave it again."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        start_in_background(
            self._hold, name=f"anyspawn hold {self._program}", if_cancelled=self._say_over
        )
        try:
            await self._opened.wait()
        except BaseException:
            self._scope.cancel()
            await see_through(self._over.wait, math.inf)
            raise
        if self._process is None:
            self._raise()
            message = f"{self._program!r} was killed before it had started"  # the loop is closed
            raise TransportError(message, started=None)
        self._process._close = self.release  # noqa: SLF001  one thing, in two files
        return self._process

    async def release(self) -> None:
        """Leave the context, and wait for that."""
        self._wanted_no_more.set()
        await see_through(self._over.wait, math.inf)  # the context's own clean-up is bounded
        self._raise()

    def _raise(self) -> None:
        raised, self._raised = self._raised, None
        if raised is not None and not isinstance(raised, anyio.get_cancelled_exc_class()):
            try:
                raise raised
            finally:
                del raised  # no cycle of frames

    async def _hold(self) -> None:
        try:
            with self._scope:
                async with self._opening as self._process:
                    self._opened.set()
                    await self._wanted_no_more.wait()
        except GeneratorExit:  # the loop is closed, and no task waits any more
            self._say_forgotten()
            raise
        except BaseException as exc:
            self._raised = exc
        self._say_forgotten()
        self._say_over()

    def _say_forgotten(self) -> None:
        """Warn that the event loop ended something that was not closed."""
        if self._process is None or self._wanted_no_more.is_set():
            return
        message = (
            f"{self._program!r} was never closed, and ended with its event loop; await its aclose()"
        )
        try:
            warnings.warn(message, ResourceWarning, source=self._process, stacklevel=2)
        except ResourceWarning:  # a warning filter makes it an error, which no caller could catch
            warn("anyspawn.spawn", "%s", message)

    def _say_over(self) -> None:
        self._opened.set()
        self._over.set()
