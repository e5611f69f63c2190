"""The common part of the checks of sandboxes and of boxes."""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import anyio
import pytest

import anyspawn
from anyspawn import Sandbox
from anyspawn.testing import _machine

__all__ = ["MARK", "PATIENCE", "Kit", "exactly", "moments", "run_in_thread", "ways"]

MARK = "CONFORMANCE_MARK"
PATIENCE = 60.0
Wait = Callable[[], Awaitable[None]]


class Kit:
    """Checks whose programs carry a mark. At the end of each check, nothing of them may be left."""

    pytestmark: ClassVar[Any] = pytest.mark.anyio

    startup: ClassVar[float] = 1.0
    overhead: ClassVar[float] = 15.0

    mark: str
    """The mark of a check's programs: in a variable, and as the duration of their sleeps."""

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        """The sandbox to check. Override it; it can be async, and can close the sandbox
        afterwards.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override the fixture `sandbox`, which returns a sandbox"
        )

    def survivors(self, mark: str) -> list[Any]:
        """Return the running programs whose variables or arguments have ``mark``.

        Default: processes of this host, from its /proc. Override it if they run elsewhere.
        """
        return _machine.survivors(mark)

    @pytest.fixture(autouse=True)
    def _leaks_nothing(self, anyio_backend: Any) -> Iterator[None]:
        self.mark = str(random.randrange(10**9, 2 * 10**9))  # noqa: S311  a name, not a secret
        backend, options = (anyio_backend, {}) if isinstance(anyio_backend, str) else anyio_backend
        _warm_up(backend, tuple(options.items()))
        before, others = _machine.open_fds(), set(_machine.children())
        yield
        assert _machine.gone(self.left), self.left()
        assert _machine.gone(lambda: {*_machine.children()} - others), "children outlived the check"

        def more() -> dict[str, str]:
            gc.collect()
            now = _machine.open_fds()
            return now if len(now) > len(before) else {}

        assert _machine.gone(more), {fd: what for fd, what in more().items() if fd not in before}

    def left(self) -> list[Any]:
        """Return the leftovers of a check."""
        return self.survivors(self.mark)

    def script(self, text: str) -> list[str]:
        """Return a shell script whose long sleeps carry the mark."""
        return ["sh", "-c", text.replace("999", self.mark)]


@functools.cache
def _warm_up(backend: str, options: tuple[tuple[str, Any], ...]) -> None:
    """Start an event loop once, so that the descriptors that it keeps are open before any are
    counted.
    """
    run_in_thread(lambda: anyspawn.spawn(["true"]), backend, dict(options))


def run_in_thread(work: Callable[[], Awaitable[Any]], backend: str, options: Any) -> None:
    """Run an event loop in a thread, because a fixture's loop may run in this one."""
    thread = threading.Thread(
        target=lambda: anyio.run(work, backend=backend, backend_options=options or None)
    )
    thread.start()
    thread.join()


async def exactly(stream: Any, size: int) -> bytes:
    """Receive exactly this many bytes."""
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


def moments(last: float, factor: float = 2, steps: int = 3) -> Iterator[Wait]:
    """Return waits that end at a call's first steps and then later, up to so many seconds."""
    for number in range(0, 24, steps):
        yield functools.partial(_steps, number)
    delay = 0.001
    while delay < last:
        yield functools.partial(anyio.sleep, delay)
        delay *= factor


async def _steps(number: int) -> None:
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


def ways() -> list[Callable[[Callable[[], Any], Callable[[], Any]], Any]]:
    """Return the ways in which this event loop cancels: each starts a call, waits, and
    cancels it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return [_cancel_scope]
    return [_cancel_scope, _cancel_task]


async def _cancel_scope(call: Callable[[], Any], wait: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await wait()
        tasks.cancel_scope.cancel()


async def _cancel_task(call: Callable[[], Any], wait: Callable[[], Any]) -> None:
    task = asyncio.ensure_future(call())
    await wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
