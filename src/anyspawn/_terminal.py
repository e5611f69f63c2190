"""A program with its own terminal, in any sandbox.

A Python helper runs beside the program, in the sandbox, and holds the other side of the terminal.
So the terminal is never the caller's, the caller needs none, and the clean-up includes it. The
helper's stdin comes in frames, each small enough for an atomic write to a pipe: input, a size, or
the end. Its stdout is the terminal's output, after a byte that means that the program was executed.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import attrs
from anyio.abc import ByteSendStream

from anyspawn._model import Command, Completed
from anyspawn._spawn.live import Process
from anyspawn.exceptions import ExitError, NotStartedError, SpawnTimeoutError, TransportError

__all__ = ["open_terminal"]

_HEADER = struct.Struct(">cH")
_SIZE = struct.Struct(">HH")
_MOST = 4096 - _HEADER.size
"""Bytes of a frame's data: a pipe takes this much and the header atomically."""
_TYPED, _RESIZED = b"t", b"s"
_END = b"\x04"
_HELPER = r"""
import fcntl, os, select, signal, struct, sys, termios
master, slave = os.openpty()
def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
resize(24, 80)
news, wake = os.pipe()
told, tell = os.pipe()
child = os.fork()
if not child:
    try:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in 0, 1, 2:
            os.dup2(slave, fd)
        for signum in signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as exc:
        os.write(tell, b"%d" % exc.errno)
    finally:
        os._exit(127)
os.close(slave)
os.close(tell)
failed = os.read(told, 16)
if failed:
    os.write(1, b"\1" + failed)
    os._exit(127)
os.write(1, b"\0")
def forward(signum, frame):
    for group in {child, os.tcgetpgrp(master)} - {0}:
        try:
            os.killpg(group, signum)
        except OSError:
            pass
os.set_blocking(master, False)
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGCHLD, lambda *_: None)
for name in "HUP", "INT", "QUIT", "TERM", "USR1", "USR2":
    signal.signal(getattr(signal, "SIG" + name), forward)
frames, typed, shown = b"", b"", b""
status = None
more = True
while more or shown:
    poll = select.poll()
    poll.register(0, 0 if typed else select.POLLIN)
    poll.register(news, select.POLLIN)
    if more:
        poll.register(master, (0 if shown else select.POLLIN) | (select.POLLOUT if typed else 0))
    if shown:
        poll.register(1, select.POLLOUT)
    ready = dict(poll.poll(0 if status is not None and not shown else None))
    if 1 in ready:
        shown = shown[os.write(1, shown[:4096]):]
    if master in ready and not shown:
        try:
            shown = os.read(master, 16384)
            more = bool(shown)
        except BlockingIOError:
            pass
        except OSError:
            more = False
    elif status is not None and not shown:
        more = False
    if typed and ready.get(master, 0) & select.POLLOUT:
        try:
            typed = typed[os.write(master, typed):]
        except BlockingIOError:
            pass
        except OSError:
            typed = b""
    if news in ready:
        os.read(news, 4096)
    if status is None:
        pid, ended = os.waitpid(child, os.WNOHANG)
        status = ended if pid else None
    if 0 in ready:
        data = b""
        if ready[0] & select.POLLIN:
            data = os.read(0, 65536)
        if not data:  # whoever types is gone: the line is hung up
            os.close(master)
            os._exit(129)
        frames += data
        while len(frames) >= 3 and len(frames) >= 3 + int.from_bytes(frames[1:3], "big"):
            size = int.from_bytes(frames[1:3], "big")
            data, kind, frames = frames[3:3 + size], frames[:1], frames[3 + size:]
            if kind == b"s":
                resize(*struct.unpack(">HH", data))
            else:
                typed += data
os.close(master)
if status is None:
    signal.set_wakeup_fd(-1)
    status = os.waitpid(child, 0)[1]
if os.WIFSIGNALED(status):
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signum = os.WTERMSIG(status)
    if signum not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
os._exit(os.WEXITSTATUS(status))
"""


@asynccontextmanager
async def open_terminal(
    opener: Callable[[Command], AbstractAsyncContextManager[Process]],
    command: Command,
    *,
    here: bool,
    seconds: float,
) -> AsyncIterator[Process]:
    """Start a program with a terminal, and give the live process.

    Args:
        opener: Opens a process in a sandbox.
        command: The program.
        here: It runs on this host, with this Python's view of the files.
        seconds: How long it can take to be executed once its helper runs.

    Raises:
        SpawnError: It did not start.
    """
    python = sys.executable if here else "python3"
    helper = attrs.evolve(
        command, argv=(python, "-I", "-S", "-c", _HELPER, *command.argv), merge_stderr=False
    )
    try:
        async with opener(helper) as process:
            terminal = _Terminal(process, command)
            await terminal.begun(seconds)
            yield terminal
    except NotStartedError as exc:
        if exc.kind == "not_found" and exc.completed is not None:  # the error is the helper's
            message = f"tty=True needs {python} in the sandbox: {exc.reason}"
            raise NotStartedError(message, kind="not_found") from None
        raise


class _Typed(ByteSendStream):
    """The input of a terminal."""

    def __init__(self, to: ByteSendStream) -> None:
        self._to = to
        self._closed = False
        self._one_by_one = anyio.Lock()

    async def send(self, item: bytes) -> None:
        """Type all of ``item``."""
        if self._closed:
            await anyio.lowlevel.checkpoint()
            raise anyio.ClosedResourceError
        for at in range(0, len(item), _MOST):
            await self._send(_TYPED, item[at : at + _MOST])

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal."""
        await self._send(_RESIZED, _SIZE.pack(rows, columns))

    async def _send(self, kind: bytes, data: bytes) -> None:
        async with self._one_by_one:
            await self._to.send(_HEADER.pack(kind, len(data)) + data)

    async def aclose(self) -> None:
        """Type the character that ends input, 0x04."""
        if not self._closed:
            try:
                await self.send(_END)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass
            finally:
                self._closed = True


class _Terminal(Process):
    """A process with a terminal."""

    def __init__(self, process: Process, command: Command) -> None:
        super().__init__(process._live)  # noqa: SLF001  this class wraps it
        self._command = command
        self.stdin = self._typed = _Typed(self.stdin)

    async def begun(self, seconds: float) -> None:
        """Wait until the program was executed.

        Raises:
            SpawnError: It was not.
        """
        program, said = self._command.argv[0], b""
        with anyio.move_on_after(seconds) as scope:
            try:
                if await self.stdout.receive(1) == b"\0":
                    return
                while True:
                    said += await self.stdout.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                await self.wait()
        if scope.cancelled_caught:
            raise SpawnTimeoutError(f"{program!r} was not started within {seconds:g} s")
        if not said.isdigit():
            raise TransportError(f"the terminal of {program!r} was lost", started=None)
        if (number := int(said)) == errno.ENOENT:
            message = f"program {program!r} was not found; install it where it runs, or give its whole path"
            raise NotStartedError(message, kind="not_found")
        message = f"program {program!r} was not executed: {os.strerror(number)}"
        raise NotStartedError(message, kind="not_executable")

    async def resize(self, rows: int, columns: int) -> None:
        """As for every process that has a terminal."""
        for name, value in (("rows", rows), ("columns", columns)):
            if not 0 <= value <= 65535:
                raise ValueError(f"{name} must be 0 to 65535, not {value}")
        await self._typed.resize(rows, columns)

    @property
    def completed(self) -> Completed | None:
        """As for every process."""
        done = self._live.completed
        if done is None:
            return None
        error = done.error
        if isinstance(error, ExitError):  # the error names the helper
            program = self._command.argv[0]
            error = ExitError(error.message.replace(repr(done.argv[0]), repr(program), 1))
        return attrs.evolve(done, argv=self._command.argv, error=error)
