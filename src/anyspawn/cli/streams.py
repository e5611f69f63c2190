"""The command line's own standard streams."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["Reader", "StreamError", "Writer", "fill_closed_streams"]

_CHUNK = 64 * 1024
_LOOK = 0.1
_T = TypeVar("_T")


class StreamError(Exception):
    """One of this command's output streams is closed or broken."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"cannot write to {name}: {error.strerror}")
        self.reader_is_gone = isinstance(error, BrokenPipeError)


class Writer:
    """Writes to one of this command's streams from a thread, so that a slow or stuck reader never
    blocks the event loop.

    The thread is a daemon, and writes to the descriptor itself, so that a stuck one does not hold
    the exit either: anyio's worker threads are waited for, and so are the locks of ``sys.stdout``.
    A stream that can be polled could do without a thread, but a file cannot be polled, and a pipe
    may have other writers that fill it first.
    """

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd
        self._queue: SimpleQueue[tuple[bytes, asyncio.Future[None]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"anyspawn {name}", daemon=True)

    async def write(self, data: bytes) -> None:
        """Wait until ``data`` is written. After a cancellation, the rest can still be written, or
        not.

        Raises:
            StreamError: It could not be written.
        """
        if self._thread.ident is None:
            self._thread.start()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((data, done))
        await done

    def _work(self) -> None:
        while True:
            data, done = self._queue.get()
            error = None
            try:
                self._write(memoryview(data))
            except OSError as exc:
                error = StreamError(self._name, exc)
            with suppress(RuntimeError):  # the loop is closed: no task waits any more
                done.get_loop().call_soon_threadsafe(_settle, done, None, error)

    def _write(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # a program that shares the stream has made it non-blocking
                select.select([], [self._fd], [])


class Reader:
    """Reads standard input from a daemon thread, one chunk on request: a slow writer blocks neither
    the event loop nor the exit, and an endless one uses no memory.

    It reads a terminal only while this command is in the foreground; otherwise the input is for the
    shell.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: SimpleQueue[asyncio.Future[bytes]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="anyspawn stdin", daemon=True)

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end, or if the stream cannot be read."""
        if self._thread.ident is None:
            self._thread.start()
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.put(done)
        return await done

    def _work(self) -> None:
        terminal = os.isatty(self._fd)
        while True:
            done = self._queue.get()
            try:
                data = self._read(terminal=terminal)
            except OSError:
                data = b""
            with suppress(RuntimeError):  # the loop is closed: no task waits any more
                done.get_loop().call_soon_threadsafe(_settle, done, data)

    def _read(self, *, terminal: bool) -> bytes:
        while True:
            if terminal and not self._may_read():
                continue
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:  # a program that shares the stream has made it non-blocking
                select.select([self._fd], [], [])

    def _may_read(self) -> bool:
        """Wait a moment; return whether the terminal has input for this command."""
        if not _in_foreground(self._fd):
            time.sleep(_LOOK)
            return False
        return bool(select.select([self._fd], [], [], _LOOK)[0]) and _in_foreground(self._fd)


def _in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is not the controlling terminal, so it has no foreground for this command
        return True


def _settle(done: asyncio.Future[_T], result: _T, error: Exception | None = None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def fill_closed_streams() -> None:
    """Open /dev/null for a closed standard stream; otherwise the next opened file would take its
    number.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003  it takes no keyword
