"""The half of a Python session that anyspawn sends into the box, where it runs on Python 3.8 or
later.

It is two processes. One talks to the host through its standard input and output, which the other
does not have. The other runs the code; its results come through one pipe, and its output through
two more. So the code can print, close its streams, fork or exit without damaging the messages to
the host.

From the host: ``R number limit size`` and the code, ``I number`` to interrupt it. To the host:
``O size`` and ``E size`` with output, ``R size`` with a result; ``X status number``: the process
that runs code exited, during that run or, with -1, between two.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import linecache
import os
import select
import signal
import sys
import traceback
import types
from typing import Any

CHUNK = 65536
MOST_IN_PIPE = 2**20
LAST = 1.0
"""Seconds that code has to exit when the session ends."""
HERE = (lambda: 0).__code__.co_filename


# --- the process that runs code -------------------------------------------------------------------


class Code:
    """Runs code, one piece after the other, in one namespace."""

    def __init__(self, requests: int, results: int, outputs: tuple[int, int]) -> None:
        self.requests = os.fdopen(requests, "rb")
        self.results = results
        self.outputs = outputs
        self.pid = os.getpid()
        self.main = types.ModuleType("__main__")
        self.kept = sys.modules["__main__"]
        sys.modules["__main__"] = self.main
        sys.argv = [""]

    def serve(self) -> None:
        while True:
            head = self.requests.readline().split()
            if not head:
                return
            number, limit, size = head
            source = self.requests.read(int(size)).decode()
            self.streams()
            said = self.run(f"<run {number.decode()}>", source, int(limit))
            if os.getpid() != self.pid:
                return  # a fork of this process, made by the code, that has finished the code
            self.send(said)

    def streams(self) -> None:
        """Restore the session's streams, whatever earlier code did to them."""
        for fd, output in enumerate(self.outputs, 1):
            name = ("stdout", "stderr")[fd - 1]
            try:
                same = os.path.sameopenfile(fd, output)
            except OSError:
                same = False
            if not same:
                os.dup2(output, fd)
            stream = getattr(sys, name)
            if stream is None or getattr(stream, "closed", False):
                setattr(sys, name, text_stream(fd))

    def run(self, name: str, source: str, limit: int) -> bytes:
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)
        value: Any = None
        data: str | None = None
        failure: list[str | None] = [None, None, None]
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self.send(b"")  # from now on it may be interrupted
                value = self.evaluate(name, source)
                if value is not None:
                    data = as_json(value, limit)
                    value = repr(value)
            finally:
                signal.signal(signal.SIGINT, ignore)
                flush()
        except BaseException as exc:
            signal.signal(signal.SIGINT, ignore)
            if os.getpid() != self.pid:
                raise
            value = data = None
            failure = [*told(exc)]
        said = (value, data, *failure)
        parts = [None if part is None else cut(part, limit) for part in said]
        sizes = [-1 if part is None else len(part) for part in parts]
        head = " ".join(map(str, sizes)).encode() + b"\n"
        return head + b"".join(part for part in parts if part is not None)

    def evaluate(self, name: str, source: str) -> Any:
        flags = ast.PyCF_ONLY_AST
        tree: Any = compile(source, name, "exec", flags, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        space = self.main.__dict__
        exec(compile(tree, name, "exec", dont_inherit=True), space)  # noqa: S102  it is for that
        if last is not None:
            return eval(compile(last, name, "eval", dont_inherit=True), space)  # noqa: S307
        return None

    def send(self, said: bytes) -> None:
        write(self.results, b"%016d" % len(said) + said)


def ignore(*_: object) -> None:
    """Take an interrupt that came too late."""


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def as_json(value: Any, limit: int) -> str | None:
    try:
        data = json.dumps(value, allow_nan=False)
    except Exception:
        return None
    return data if len(data) <= limit else None


def told(exc: BaseException) -> list[str]:
    """Return an exception's type, message and traceback."""
    kind = type(exc)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        message = str(exc)
    except Exception:
        message = "<no message: its __str__ failed>"
    where = exc.__traceback__
    while where is not None and where.tb_frame.f_code.co_filename == HERE:
        where = where.tb_next
    try:
        text = "".join(traceback.format_exception(kind, exc, where))
    except Exception:
        text = "<no traceback: to format it failed>"
    return [name, message, text]


def cut(text: str, limit: int) -> bytes:
    """Return text in UTF-8; if it is too long, without its middle."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data
    half = limit // 2
    start, end = (
        part.decode("utf-8", "ignore") for part in (data[:half], data[len(data) - half :])
    )
    return f"{start}[... {len(data) - 2 * half} bytes left out ...]{end}".encode()


def text_stream(fd: int) -> Any:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


# --- the process that talks to the host -----------------------------------------------------------


class Host:
    """Passes on the host's requests, and the results and output of the code."""

    def __init__(
        self, code: int, requests: int, results: int, outputs: dict[int, bytes], wake: int
    ) -> None:
        self.code = code
        self.requests = requests
        self.results = results
        self.open = True  # the results
        self.outputs = outputs  # by descriptor: the letter
        self.wake = wake
        self.held = {b"O": b"", b"E": b""}
        self.said = self.heard = b""
        self.number = -1  # of what runs
        self.started = self.wanted_no_more = False

    def serve(self) -> None:
        """Run until the host closes its side, or the code's process has exited."""
        while True:
            results = [self.results] if self.open else []
            ready, _, _ = select.select([0, self.wake, *results, *self.outputs], [], [])
            for fd in ready:
                if fd in self.outputs:
                    self.take(fd)
            if self.results in ready:
                self.answer()
            if self.wake in ready:
                os.read(self.wake, 4096)
                if self.over():
                    return
            if 0 in ready and not self.listen():
                return

    def listen(self) -> bool:
        data = os.read(0, CHUNK)
        self.said += data
        while self.said:
            line, found, rest = self.said.partition(b"\n")
            if not found:
                break
            word, number, *sizes = line.split()
            if word == b"I":
                if int(number) == self.number:
                    self.wanted_no_more = True
                    self.interrupt()
            else:
                size = int(sizes[1])
                if len(rest) < size:
                    break
                self.number, self.started, self.wanted_no_more = int(number), False, False
                for letter, held in self.held.items():
                    self.tell(letter, held)
                    self.held[letter] = b""
                with contextlib.suppress(BrokenPipeError):  # it has exited, which `over` reports
                    write(self.requests, b" ".join([number, *sizes]) + b"\n" + rest[:size])
                rest = rest[size:]
            self.said = rest
        return bool(data)

    def interrupt(self) -> None:
        if self.started and self.wanted_no_more:
            self.started = False  # once
            if os.getpgrp() == os.getpid():  # like Ctrl-C: the code's children get it too
                os.killpg(0, signal.SIGINT)
            else:
                os.kill(self.code, signal.SIGINT)

    def take(self, fd: int) -> int:
        """Pass on what is in a pipe of output; between two runs, keep its end for the next."""
        data = read(fd, CHUNK)
        if data == b"":  # closed by all
            del self.outputs[fd]
        elif data:
            letter = self.outputs[fd]
            if self.number < 0:
                self.held[letter] = (self.held[letter] + data)[-CHUNK:]
            else:
                self.tell(letter, data)
        return len(data or b"")

    def rest(self) -> None:
        """Pass on all output that was written before now."""
        for fd in list(self.outputs):
            taken = 0
            while taken < MOST_IN_PIPE:
                more = self.take(fd)
                if not more:
                    break
                taken += more

    def answer(self) -> None:
        data = read(self.results, CHUNK)
        self.open = data != b""
        self.heard += data or b""
        while len(self.heard) >= 16:
            size = int(self.heard[:16])
            if len(self.heard) < 16 + size:
                return
            body, self.heard = self.heard[16 : 16 + size], self.heard[16 + size :]
            if not body:
                self.started = True
                self.interrupt()
                continue
            self.rest()
            write(1, b"R %d\n" % len(body) + body)
            self.number = -1

    def over(self) -> bool:
        """Whether the code's process has exited; if so, tell the host."""
        pid, status = os.waitpid(self.code, os.WNOHANG)
        if not pid:
            return False
        while self.open and select.select([self.results], [], [], 0)[0]:
            self.answer()
        self.rest()
        status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        write(1, b"X %d %d\n" % (status, self.number))
        self.code = 0
        return True

    def tell(self, letter: bytes, data: bytes) -> None:
        if data:
            write(1, letter + b" %d\n" % len(data) + data)

    def end(self) -> None:
        """Make the code's process exit; it has a moment for its exit handlers."""
        os.close(self.requests)
        while self.code and select.select([self.wake], [], [], LAST)[0]:
            os.read(self.wake, 4096)
            if os.waitpid(self.code, os.WNOHANG)[0]:
                self.code = 0


def read(fd: int, size: int) -> bytes | None:
    """Return the available bytes: ``b""`` at the end, ``None`` if there are none now."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None


def write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def high(fd: int) -> int:
    """Move a descriptor to a high number that code does not use by chance."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    except OSError:  # so many are not allowed
        return fd
    os.close(fd)
    return moved


def begin(nonce: str, first: list[str]) -> None:
    """Start both processes; ``first`` is the first entry of the code's ``sys.path``."""
    requests, results, out, err, wake = ([high(fd) for fd in os.pipe()] for _ in range(5))
    for fd in (results[0], out[0], err[0], *wake):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, ignore)
    signal.set_wakeup_fd(wake[1], warn_on_full_buffer=False)
    pid = os.fork()
    if not pid:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, ignore)
        for fd in (requests[1], results[0], out[0], err[0], *wake):
            os.close(fd)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, place in ((null, 0), (out[1], 1), (err[1], 2)):
            os.dup2(fd, place)
        os.close(null)
        sys.path[:0] = first
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  it stays
        sys.stdout, sys.stderr = text_stream(1), text_stream(2)
        Code(requests[0], results[1], (out[1], err[1])).serve()
        return  # and end as any Python does
    for fd in (requests[0], results[1], out[1], err[1]):
        os.close(fd)
    host = Host(pid, requests[1], results[0], {out[0]: b"O", err[0]: b"E"}, wake[0])
    try:
        write(1, b"\n%s %s\n" % (nonce.encode(), sys.version.split()[0].encode()))
        host.serve()
        host.end()
    finally:
        if host.code:
            os.kill(host.code, signal.SIGKILL)
        os._exit(0)
