"""Pipes to and from a program, and what is kept of its output."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from anyspawn.supervisor import Frames

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # looked at before each use

__all__ = ["Feed", "Output", "make_pipe", "unread", "write_quietly"]

_CHUNK = 64 * 1024
_PIPE_LEAST = 4096
"""What an empty pipe takes whole even where the user's share of pipe memory is spent."""
_WIDE = 1024 * 1024
_TURN = 1024 * 1024
"""Bytes moved before the event loop gets its turn."""


def make_pipe() -> tuple[int, int]:
    """Return the read and write ends of a pipe, neither of them 0, 1 or 2 (which a host without
    streams has free).
    """
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
    # Fewer, larger reads for programs that write a lot; refused where the user's share of pipe
    # memory is spent.
    if fcntl is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE)


def _rotate(view: memoryview, left: int, *, most: int = _WIDE) -> None:
    """Move the first ``left`` bytes behind the others, in place: no more than ``most`` of them are
    held twice.
    """
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


def unread(read_end: int) -> int:
    """Return how many bytes wait in a pipe, as far as this system tells; otherwise 0."""
    if not hasattr(fcntl, "ioctl"):
        return 0
    import termios

    return int.from_bytes(fcntl.ioctl(read_end, termios.FIONREAD, bytes(4)), sys.byteorder)


def write_quietly(fd: int, data: memoryview) -> int:
    """Write to a pipe whose reader may be gone, also in a host that SIGPIPE would end.

    Raises:
        BlockingIOError: The pipe is full.
        BrokenPipeError: Nobody reads it any more.
    """
    if not hasattr(signal, "SIGPIPE") or signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
        return os.write(fd, data)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        if signal.SIGPIPE not in blocked:
            signal.sigwait({signal.SIGPIPE})  # it is pending, as it was meant for this thread
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Output:
    """One output stream: the pipe's read end and what is kept of what came through it.

    No more than the limit and a constant is held: a ``BytesIO`` hands out its own buffer without
    copying it, and what is kept of the end goes round in the second half of the same buffer.

    Attributes:
        stays: The pipe is a resident's: it outlives this, which ends where the frames say so.
    """

    def __init__(
        self,
        name: Literal["stdout", "stderr"],
        fd: int,
        limit: int,
        *,
        keep_tail: bool,
        frames: Frames | None = None,
    ) -> None:
        self.name: Literal["stdout", "stderr"] = name
        self.fd = fd
        self.at_end = False
        self.frames = frames
        self.stays = False
        self._keep_tail = keep_tail
        self.total = 0
        self.overflowed = False
        self._head = limit - limit // 2 if keep_tail else limit
        self._buffer = BytesIO()
        self._tail = limit - self._head
        self._next = 0  # where in the tail's half the next byte goes
        self._chunk = _CHUNK

    @property
    def open(self) -> bool:
        return self.fd >= 0

    def read(self) -> bytes:
        """Return the next chunk, without frames; to be called when the pipe is ready to be read.

        At the end of the stream `at_end` is set.
        """
        data = os.read(self.fd, self._chunk)
        self.at_end = not data
        if len(data) == _CHUNK == self._chunk:
            self._chunk = _WIDE
            _widen(self.fd)
        if self.frames is not None:
            data = self.frames.rest() if self.at_end else self.frames.feed(data)
            self.at_end = self.at_end or (self.stays and self.frames.over)
        self.keep(data)
        return data

    def keep(self, data: bytes) -> None:
        """Keep what the limit lets of a chunk."""
        room = self._head - min(self.total, self._head)
        self.total += len(data)
        if len(data) <= room:
            self._buffer.write(data)
            return
        rest = memoryview(data)
        self._buffer.write(rest[:room])
        if self._keep_tail:
            self._keep_end(rest[room:])
        else:
            self.overflowed = True

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

    def so_far(self) -> bytes:
        """Return what was kept of the beginning."""
        return self._buffer.getvalue()

    def read_rest(self) -> None:
        """Read what is there, without waiting."""
        if self.open:
            os.set_blocking(self.fd, False)
            with suppress(BlockingIOError):
                while not self.at_end:
                    self.read()

    def close(self) -> None:
        if self.open:
            if not self.stays:
                os.close(self.fd)
            self.fd = -1

    def take(self) -> bytes:
        """Return what was kept; to be called once, at the end."""
        if self._keep_tail and self.total > self._head + self._tail > self._head:
            with self._buffer.getbuffer() as view:
                _rotate(view[self._head :], self._next % self._tail)
        return self._buffer.getvalue()


class Feed:
    """The program's standard input: filled before the program starts as far as the pipe holds, fed
    while it runs.

    The pipe's read end stays open here until everything is written, so that a program which does
    not read, or ends early, is never a broken pipe (nor, in a host with SIGPIPE at its default, the
    end of the host).

    Args:
        data: What it reads.
        hold: Keep the stream open when all is written.
        later: Write nothing before `begin`.
        pipe: The ends of a resident's pipe, which outlives this. Default: a new pipe.

    Attributes:
        stays: The pipe outlives this.
    """

    def __init__(
        self,
        data: bytes,
        *,
        hold: bool = False,
        later: bool = False,
        pipe: tuple[int, int] | None = None,
    ) -> None:
        self.stays = pipe is not None
        self.read_end, self.fd = pipe or make_pipe()
        self.hold = hold
        self.waiting = later
        self._rest = memoryview(data)
        if not later:
            self.begin()

    def add(self, data: memoryview) -> None:
        """Write more, after what came first."""
        self._rest = data
        self.begin()

    def begin(self) -> None:
        """Write what the pipe holds."""
        self.waiting = False
        data = self._rest
        if not data:
            self._finish()
            return
        if len(data) > _CHUNK:
            _widen(self.fd)
        if len(data) > _PIPE_LEAST:
            os.set_blocking(self.fd, False)
        self.write()
        if self.done:
            self._finish()

    @property
    def done(self) -> bool:
        return not self._rest

    def write(self) -> None:
        """Write what the pipe takes now."""
        budget = _TURN
        with suppress(BlockingIOError):
            while self._rest and budget > 0:
                sent = os.write(self.fd, self._rest[:_TURN])
                self._rest = self._rest[sent:]
                budget -= sent

    def close_read_end(self) -> None:
        if self.read_end >= 0 and not self.stays:
            os.close(self.read_end)
            self.read_end = -1

    def _finish(self) -> None:
        if not self.hold:
            self.close_write_end()

    def close_write_end(self) -> None:
        if self.fd >= 0 and not self.stays:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.close_write_end()
        self.close_read_end()
