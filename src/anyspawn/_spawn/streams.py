"""Pipes to and from a program: keeping its output, and feeding its input.

Everything that waits for a descriptor of one process is registered in one place, `Watch`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Literal
from weakref import WeakSet

import anyio

if TYPE_CHECKING:
    from anyspawn._model import Overflow
    from anyspawn.supervisor import Conversation

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # looked at before each use

__all__ = ["Capture", "Feed", "Output", "Watch", "WriteEnd", "make_pipe"]

_CHUNK = 64 * 1024
_PIPE_LEAST = 4096
"""What an empty pipe takes whole, even if the user's share of pipe memory is used up."""
_WIDE = 1024 * 1024
_TURN = 1024 * 1024
"""Bytes moved before the event loop gets its turn."""


def make_pipe() -> tuple[int, int]:
    """Return the read and write ends of a pipe, neither of them 0, 1 or 2 (which may be free)."""
    ends = os.pipe()
    if min(ends) > 2 or fcntl is None:
        return ends
    moved: list[int] = []
    try:
        moved.extend(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    except OSError:
        for end in moved:
            os.close(end)
        raise
    finally:
        for end in ends:
            os.close(end)
    return moved[0], moved[1]


def _widen(fd: int) -> None:
    # Fewer, larger reads; refused if the user's share of pipe memory is used up.
    if fcntl is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE)


def _rotate(view: memoryview, left: int, *, most: int = _WIDE) -> None:
    """Move the first ``left`` bytes behind the others, in place, ``most`` at a time."""
    begin, end = 0, len(view)
    while 0 < left < end - begin:
        right = end - begin - left
        if left <= most:
            held = bytes(view[begin : begin + left])
            view[begin : end - left] = view[begin + left : end]
            view[end - left : end] = held
            return
        if right <= most:
            held = bytes(view[end - right : end])
            view[begin + right : end] = view[begin : end - right]
            view[begin : begin + right] = held
            return
        same = min(left, right)
        other = end - same
        for done in range(0, same, most):
            size = min(most, same - done)
            first, second = begin + done, other + done
            held = bytes(view[first : first + size])
            view[first : first + size] = view[second : second + size]
            view[second : second + size] = held
        if left <= right:
            end -= left
        else:
            begin += right
            left -= right


class Capture:
    """The kept part of a stream: never more memory than the limit and a constant.

    A ``BytesIO`` hands out its own buffer without a copy. The kept end of the stream is a ring in
    the second half of that buffer.

    Args:
        limit: Bytes that are kept.
        overflow: Which bytes, as in `Command.overflow`.

    Attributes:
        total: Bytes that arrived.
        overflowed: The limit was exceeded, and that is an error.
    """

    def __init__(self, limit: int, overflow: Overflow) -> None:
        self.total = 0
        self.overflowed = False
        self._is_error = overflow == "error"
        self._tail = {"tail": limit, "truncate": limit // 2}.get(overflow, 0)
        self._head = limit - self._tail
        self._next = 0  # where in the tail's half the next byte goes
        self._buffer = BytesIO()

    def keep(self, data: bytes) -> None:
        """Keep as much of a chunk as the limit allows."""
        room = self._head - min(self.total, self._head)
        self.total += len(data)
        if len(data) <= room:
            self._buffer.seek(0, os.SEEK_END)
            self._buffer.write(data)
            return
        rest = memoryview(data)
        if room:
            self._buffer.seek(0, os.SEEK_END)
            self._buffer.write(rest[:room])
        self._keep_end(rest[room:])
        self.overflowed = self._is_error

    def _keep_end(self, rest: memoryview) -> None:
        if len(rest) > self._tail:
            self._next += len(rest) - self._tail
            rest = rest[len(rest) - self._tail :]
        while rest:
            self._next %= self._tail
            taken = rest[: self._tail - self._next]
            self._buffer.seek(self._head + self._next)
            self._buffer.write(taken)
            self._next += len(taken)
            rest = rest[len(taken) :]

    def value(self) -> bytes:
        """Return what was kept so far."""
        if self.total > self._head + self._tail > self._head:
            with self._buffer.getbuffer() as view:
                _rotate(view[self._head :], self._next % self._tail)
            self._next = 0
        return self._buffer.getvalue()


class Output:
    """One output stream: the pipe's read end, and its current command's state.

    Args:
        name: Which stream it is.
        fd: The read end.

    Attributes:
        capture: The kept part of it.
        talk: The conversation whose frames are in it, if there is one.
        at_end: The end of its command's output was read.
        eof: The end of the pipe was read.
        stays: The pipe is a resident's: the frames say where a command's output ends.
    """

    def __init__(self, name: Literal["stdout", "stderr"], fd: int) -> None:
        self.name: Literal["stdout", "stderr"] = name
        self.fd = fd
        self.stays = self.eof = False
        self._chunk = _CHUNK
        self.begin(Capture(0, "error"), None)

    def begin(self, capture: Capture, talk: Conversation | None) -> None:
        """Treat what is read from now on as a command's."""
        self.capture, self.talk, self.at_end = capture, talk, self.eof

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return self.fd >= 0 and not self.at_end

    def read(self) -> bytes:
        """Return the next chunk of the program's own output, without frames.

        Raises:
            BlockingIOError: There is none now.
        """
        data = os.read(self.fd, self._chunk)
        self.at_end = self.eof = not data
        if len(data) == _CHUNK == self._chunk:
            self._chunk = _WIDE
            _widen(self.fd)
        if self.talk is not None:
            data = self.talk.receive(self.name, data)
            self.at_end = self.at_end or (self.stays and self.talk.over(self.name))
        self.capture.keep(data)
        return data

    def read_rest(self, most: int = sys.maxsize) -> Iterator[bytes]:
        """Read what has arrived, without waiting."""
        if self.open:
            os.set_blocking(self.fd, False)
            with suppress(BlockingIOError):
                while self.open and most > 0:
                    most -= len(data := self.read())
                    yield data

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class WriteEnd:
    """The write end of a pipe. A fork of this process closes its copy, which would keep the pipe
    open.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _write_ends.add(self)

    def write(self, data: memoryview) -> int:
        """Write to a pipe whose reader may be gone, without a SIGPIPE for this process.

        Raises:
            BlockingIOError: The pipe is full.
            BrokenPipeError: The other end is closed.
        """
        if not hasattr(signal, "SIGPIPE") or signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
            return os.write(self.fd, data)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        try:
            return os.write(self.fd, data)
        except BrokenPipeError:
            if signal.SIGPIPE not in blocked:
                signal.sigwait({signal.SIGPIPE})  # it is pending, as it was meant for this thread
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


_write_ends: WeakSet[WriteEnd] = WeakSet()


def _close_all() -> None:
    for end in list(_write_ends):
        end.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


class Feed(WriteEnd):
    """A pipe that a program reads from: filled before it starts as far as it holds, then fed.

    The pipe's read end stays open here until everything is written, so that a program which does
    not read, or exits early, causes neither a broken pipe nor a SIGPIPE.

    Args:
        data: What the program reads. ``None``: no pipe; it shares this process's stdin.
        hold: Keep the stream open after everything is written.
        later: Write nothing before `begin`.

    Attributes:
        waiting: Nothing was written yet.
        stays: Both ends stay open, as more may be written.
    """

    def __init__(
        self,
        data: bytes | None = b"",
        *,
        hold: bool = False,
        later: bool = False,
        stays: bool = False,
    ) -> None:
        self.read_end, fd = (-1, -1) if data is None else make_pipe()
        super().__init__(fd)
        self.stays = stays
        self.waiting = later
        self._hold = hold
        self._rest = memoryview(data or b"")
        if not later:
            self.begin()

    def begin(self) -> None:
        """Write as much as the pipe takes."""
        self.waiting = False
        if len(self._rest) > _CHUNK:
            _widen(self.fd)
        if len(self._rest) > _PIPE_LEAST:
            os.set_blocking(self.fd, False)
        self.pump()
        self.finish()

    def load(self, data: bytes) -> None:
        """Set what `begin` writes."""
        self._rest = memoryview(data)

    def add(self, data: bytes | memoryview) -> None:
        """Write more, after what is pending, as much as the pipe takes."""
        self._rest = memoryview(bytes(self._rest) + data) if self._rest else memoryview(data)
        os.set_blocking(self.fd, False)
        self.pump()

    @property
    def done(self) -> bool:
        return not self._rest

    def pump(self) -> None:
        """Write what the pipe takes now; nothing before `begin`."""
        budget = 0 if self.waiting else _TURN
        with suppress(BlockingIOError):
            while self._rest and budget > 0:
                sent = os.write(self.fd, self._rest[:_TURN])
                self._rest = self._rest[sent:]
                budget -= sent

    def finish(self) -> None:
        """Close the write end after everything is written, unless it stays open."""
        if self.done and not self._hold:
            super().close()

    def drop_read_end(self) -> None:
        """Close this process's copy of the read end after everything is written."""
        if self.read_end >= 0 and self.done and not self.waiting and not self.stays:
            os.close(self.read_end)
            self.read_end = -1

    def unread(self) -> int:
        """Return how many bytes wait in the pipe; 0 if this system does not say."""
        if self.read_end < 0 or not hasattr(fcntl, "ioctl"):
            return 0
        import termios

        waiting = fcntl.ioctl(self.read_end, termios.FIONREAD, bytes(4))
        return int.from_bytes(waiting, sys.byteorder)

    def close(self) -> None:
        self.waiting = False
        super().close()
        if self.read_end >= 0:
            os.close(self.read_end)
            self.read_end = -1


if sys.platform == "linux":
    import select

    _Poll = select.epoll
    _READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
else:
    import selectors

    _READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

    class _Poll(selectors.DefaultSelector):
        """A selector with the interface of an epoll, which takes half the time."""

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            return [(key.fd, events) for key, events in self.select(timeout)]


class Watch:
    """Waits for the next event of one process: it writes, reads or exits.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(self) -> None:
        self._poll = _Poll()
        self._sources: dict[int, Output | Feed | None] = {}

    def reads(self, output: Output) -> None:
        self._add(output.fd, _READ, output)

    def writes(self, feed: Feed) -> None:
        """Wait for room in a pipe, if there is more to write to it."""
        if not feed.done and not feed.waiting and feed.fd not in self._sources:
            self._add(feed.fd, _WRITE, feed)

    def exits(self, pidfd: int) -> None:
        self._add(pidfd, _READ, None)

    def _add(self, fd: int, events: int, source: Output | Feed | None) -> None:
        self._poll.register(fd, events)
        self._sources[fd] = source

    def forget(self, fd: int) -> None:
        """Stop waiting for a descriptor. Closing it is not enough: a fork may have a copy."""
        if fd in self._sources:
            del self._sources[fd]
            with suppress(OSError, KeyError):  # somebody has closed it
                self._poll.unregister(fd)

    def ready(self) -> list[Output | Feed | None]:
        """Return what is ready now; ``None`` stands for the exit."""
        return [self._sources[fd] for fd, _ in self._poll.poll(0) if fd in self._sources]

    async def wait(self) -> None:
        await anyio.wait_readable(self._poll)

    def close(self) -> None:
        self._poll.close()
