"""Parts that several adapters share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream
from anyio.streams.text import TextReceiveStream

import anyspawn
from anyspawn._held import Held

__all__ = ["GONE", "finish", "lines", "needs", "start"]

GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""The errors of a stream when either end of it is closed."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say which extra to install if an import in the block fails."""
    try:
        yield
    except ImportError as exc:
        message = f"anyspawn.contrib.{extra.replace('-', '_')} needs {extra} ({exc}): "
        message += f"pip install 'anyspawn[{extra}]'"
        raise ImportError(message, name=exc.name) from exc


async def lines(stream: ByteReceiveStream, encoding: str = "utf-8") -> AsyncIterator[str]:
    """Give each whole line, without its end, until the stream ends or is closed."""
    rest, chunks = "", TextReceiveStream(stream, encoding, "replace")
    with suppress(*GONE):
        async for chunk in chunks:
            *whole, rest = (rest + chunk).split("\n")
            for line in whole:
                yield line


async def start(box: anyspawn.Box, argv: Sequence[str], **fields: Any) -> anyspawn.Process:
    """Start a program in a box, as `Box.open_process` does, until its `aclose`."""
    return await Held(box.open_process(argv, **fields), argv[0]).start()


async def finish(process: anyspawn.Process, seconds: float) -> None:
    """End a program that serves its stdin: close that, wait for the program to exit, and kill what
    is left.
    """
    try:
        for stream in (process.stdin, process.stdout, process.stderr):
            await stream.aclose()
        with anyio.move_on_after(seconds), suppress(*GONE, anyspawn.TransportError):
            await process.wait()
    finally:
        await process.aclose()
