"""Parts that several adapters share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream
from anyio.streams.text import TextReceiveStream

import anyspawn
from anyspawn._held import Held

__all__ = ["GONE", "OneLoop", "finish", "lines", "needs", "run_shell", "start", "why_failed"]

GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""The errors of a stream after either end is closed."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say which extra to install if an import in the block fails."""
    try:
        yield
    except ImportError as exc:
        message = f"this adapter needs {extra}: pip install 'anyspawn[{extra}]' ({exc})"
        raise ImportError(message, name=exc.name) from exc


async def lines(stream: ByteReceiveStream, encoding: str = "utf-8") -> AsyncIterator[str]:
    """Give each whole line, without its end, until the stream ends or is closed."""
    rest, chunks = "", TextReceiveStream(stream, encoding, "replace")
    with suppress(*GONE):
        async for chunk in chunks:
            *whole, rest = (rest + chunk).split("\n")
            for line in whole:
                yield line


async def run_shell(
    box: anyspawn.Box, command: str, **fields: Any
) -> tuple[anyspawn.Completed, bool]:
    """Run a shell command, and keep what it leaves running; return its outcome, and whether it
    timed out.

    Args:
        box, command: Where, and what.
        fields: As for `Box.spawn`.

    Raises:
        SpawnError: It did not start, or was lost, so there is neither a status nor a timeout.
    """
    argv = ["sh", "-c", command]
    done = await box.spawn(argv, overflow="truncate", leave="detached", **fields)
    timed_out = isinstance(done.error, anyspawn.SpawnTimeoutError)
    if done.returncode is None and not timed_out:
        done.check()
    return done, timed_out


async def start(box: anyspawn.Box, argv: Sequence[str], **fields: Any) -> anyspawn.Process:
    """Start a program in a box, as `Box.open_process` does, until its `aclose`."""
    return await Held(box.open_process(argv, **fields), argv[0]).start()


async def finish(process: anyspawn.Process, seconds: float) -> None:
    """End a server on stdio: close its stdin, discard its output, wait for it to exit, and kill
    what is left.
    """
    try:
        for stream in (process.stdin, process.stdout):
            await stream.aclose()
        with anyio.move_on_after(seconds), suppress(*GONE, anyspawn.TransportError):
            await process.wait()
    finally:
        await process.aclose()


class OneLoop:
    """The running event loop of asyncio, for calls from other threads."""

    def __init__(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    def wait(self, do: Any, *args: Any, **fields: Any) -> Any:
        """Return the result of an async function that runs in that loop."""
        if threading.get_ident() == self._thread:
            raise RuntimeError("this would block the event loop of the box: await the 'a' method")
        return asyncio.run_coroutine_threadsafe(do(*args, **fields), self._loop).result()


def why_failed(done: anyspawn.PythonResult) -> str:
    """Return the message for a code agent whose code failed."""
    stopped = f"The code was interrupted: {done.stopped}\n" if done.stopped else ""
    return stopped + (done.error.traceback or done.error.message if done.error else "")
