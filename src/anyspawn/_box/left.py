"""Processes that calls of a box left running, each with the connection to its supervisor."""

from __future__ import annotations

from functools import partial

import anyio

from anyspawn._model import Cleanup
from anyspawn._spawn.call import EndsWithIt, Work
from anyspawn._spawn.streams import Capture
from anyspawn._spawn.tasks import start_in_background, uninterrupted
from anyspawn._telemetry import warn

__all__ = ["Left"]


class _Kept:
    """The processes of one call; its supervisor kills them when the connection is closed."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.scope, self.drained = anyio.CancelScope(), anyio.Event()


class Left:
    """The processes of all calls; they are killed when the box ends."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._over = False

    def keep(self, work: Work) -> bool:
        """Keep the processes that a call left; return whether the box is still open."""
        if self._over:
            return False
        kept = _Kept(work)
        self._kept.append(kept)
        start_in_background(self._drain, kept, name="anyspawn box", if_cancelled=kept.drained.set)
        return True

    async def _drain(self, kept: _Kept) -> None:
        """Read and drop their output, so that they do not get SIGPIPE or block; forget them when
        they exit.
        """
        work = kept.work
        try:
            with kept.scope:
                work.take = None
                for output in work.connection.outputs:
                    output.begin(Capture(0, "truncate"), work.talk)
                while any(output.fd >= 0 for output in work.connection.outputs):
                    await work.turn()
            if work.talk is not None and not kept.scope.cancel_called:
                await _end(work)
                self._kept.remove(kept)
        except Exception as exc:  # a task of the event loop's must not raise
            warn("anyspawn.box", "what %r left is not read: %r", work.command.argv[0], exc)
        finally:
            kept.drained.set()

    def stop(self) -> bool:
        """Keep no more; return whether there is something to `end`."""
        self._over = True
        return bool(self._kept)

    async def end(self) -> None:
        """Kill all of them, and check until they are gone, in bounded time."""
        async with anyio.create_task_group() as tasks:
            for kept in self._kept:
                tasks.start_soon(uninterrupted(partial(self._end, kept)))
        self._kept.clear()

    async def _end(self, kept: _Kept) -> None:
        kept.scope.cancel()
        await kept.drained.wait()
        if kept in self._kept:
            await _end(kept.work)


async def _end(work: Work) -> None:
    try:
        await EndsWithIt().end(work)
    finally:
        work.connection.close()
    if work.cleanup is Cleanup.UNCONFIRMED:
        warn("anyspawn.box", "what %r left running may still be there", work.command.argv[0])
