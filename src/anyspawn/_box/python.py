"""A Python interpreter that stays in a box and runs code piece by piece. `inside` is its other
half.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from importlib.resources import files
from typing import Any, Literal

import anyio
from attrs import field, frozen

from anyspawn._held import Held
from anyspawn._model import Command, Overflow, Timeout, _beginning, _marked
from anyspawn._spawn.live import Process
from anyspawn._spawn.streams import Capture
from anyspawn._spawn.tasks import see_through, start_in_background
from anyspawn.exceptions import NotStartedError, SpawnError, SpawnTimeoutError, TransportError

__all__ = ["PythonFailure", "PythonResult", "PythonSession"]

# Reads the other half and runs it. Also valid in older versions, which then report themselves.
_LOADER = """
import os, sys
if sys.version_info < (3, 8):
    sys.exit("the Python of a session must be 3.8 or later, not " + sys.version.split()[0])
first = [sys.path.pop(0)] if sys.path and not sys.path[0] else []  # no import here is from there
sys.dont_write_bytecode = True
text, names = b"", {"__name__": "anyspawn"}
while len(text) < int(sys.argv[2]):
    text += os.read(0, int(sys.argv[2]) - len(text)) or sys.exit("its text was cut off")
exec(compile(text, "<anyspawn>", "exec"), names)
names["begin"](sys.argv[1], first)
"""
_NOISE = 64 * 1024
"""Bytes that may precede the first frame, for example from a ``sitecustomize`` that prints."""
_CHUNK = 64 * 1024
_QUOTED = 500
_LAST = 2.0
"""Seconds that the interpreter has to exit by itself."""


@frozen(kw_only=True)
class PythonFailure:
    """The exception that ended a piece of code.

    Attributes:
        type: Its class, such as ``ZeroDivisionError`` or ``json.decoder.JSONDecodeError``. If the
            interpreter itself exited or was killed: ``Exited`` or ``Killed``.
        message: Its text.
        traceback: The traceback as Python prints it; empty if the interpreter exited or was killed.
    """

    type: str
    message: str
    traceback: str = field(default="", repr=False)


@frozen(kw_only=True)
class PythonResult:
    """The result of a piece of code.

    The code itself reports all of it: hostile code can forge the results of its own session, and of
    others in the same box.

    Attributes:
        value: The ``repr`` of the last expression; ``None`` if it was None, or if the code does not
            end with an expression. If it exceeds ``output_limit`` bytes, a mark replaces its
            middle; the same holds for the texts of ``error``.
        data: The same value after a round trip through JSON (tuples become lists); ``None`` if JSON
            cannot represent it within ``output_limit``.
        stdout, stderr: The output, as far as ``overflow`` keeps it.
        stdout_total, stderr_total: How many bytes were written.
        overflow: As given to `PythonSession.run`.
        error: The exception that ended it, if one did.
        stopped: Why the code was interrupted: ``"timeout"``, or ``"output_limit"`` for too much
            output with ``overflow="error"``. The code can have finished nevertheless.
        state_lost: The interpreter exited or was killed, and its variables are gone. The next run
            starts a new one.
        duration: Seconds that it took.
    """

    value: str | None = None
    data: Any = None
    stdout: bytes = field(default=b"", repr=_beginning)
    stderr: bytes = field(default=b"", repr=_beginning)
    stdout_total: int = 0
    stderr_total: int = 0
    overflow: Overflow = "error"
    error: PythonFailure | None = None
    stopped: Literal["timeout", "output_limit"] | None = None
    state_lost: bool = False
    duration: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the code finished without an exception, in time and within its limits."""
        return self.error is None and self.stopped is None

    @property
    def text(self) -> str:
        """``stdout`` as text, with a mark where bytes were left out, like `Completed.text`."""
        return _marked(self.stdout, self.stdout_total, self.overflow)

    @property
    def stderr_text(self) -> str:
        """``stderr`` as text, like ``text``."""
        return _marked(self.stderr, self.stderr_total, self.overflow)


class _Broken(Exception):  # noqa: N818  it goes no further than this file
    """The bytes are not a frame: something else writes to the same stream."""


class _Run:
    """One piece of code under way."""

    def __init__(self, number: int, command: Command) -> None:
        self.number = number
        self.limit = command.output_limit
        self.outputs = {
            word: Capture(command.output_limit, command.overflow) for word in ("O", "E")
        }
        self.sent, self.done, self.news = anyio.Event(), anyio.Event(), anyio.Event()
        self.said: list[str | None] | None = None
        self.status: int | None = None
        self.between = False  # the interpreter exited before this run began
        self.dropped = False  # the interpreter, with its state

    @property
    def overflowed(self) -> bool:
        return any(output.overflowed for output in self.outputs.values())


class PythonSession:
    """A Python interpreter that stays in a box: variables, imports and functions stay from one run
    to the next. `Box.python` makes one.

    Runs take place one after the other. The code has no standard input. anyspawn kills the
    processes that it starts at the end of the session. Output between two runs, for example from a
    thread, is in the next run's output, up to its last 64 KiB. The session writes no file, not even
    ``__pycache__``.

    Attributes:
        version: The interpreter's, such as ``"3.12.1"``.
    """

    def __init__(
        self,
        opening: Callable[[Sequence[str]], AbstractAsyncContextManager[Process]],
        program: str,
        default_timeout: float,
    ) -> None:
        self.version = ""
        self._opening = opening
        self._program = program
        self._default_timeout = default_timeout
        self._lock = anyio.Lock()
        self._process: Process | None = None
        self._ahead = b""  # bytes that were read, and not used yet
        self._number = 0
        self._closed = False

    async def run(
        self,
        code: str,
        *,
        timeout: Timeout = "default",
        grace: float = 2.0,
        output_limit: int = 2**20,
        overflow: Overflow = "error",
    ) -> PythonResult:
        """Run a piece of code to its end, and return the result.

        When the code times out, anyspawn interrupts it and its process group, like Ctrl-C: the code
        gets a KeyboardInterrupt, and the variables stay. If it still runs ``grace`` seconds later,
        anyspawn kills the interpreter and everything that it started; ``state_lost`` is then true,
        and the next run starts a new interpreter. If this call is cancelled, the same happens
        before the cancellation continues.

        Args:
            code: Statements. The value of the last one is kept, if it is an expression.
            timeout: Seconds that the code can take. Left out: the sandbox's ``default_timeout``, 10
                s. ``None``: no limit.
            grace: Seconds that the code has to finish after the KeyboardInterrupt. Default 2.
            output_limit: Bytes kept of each stream, and of each other text of the result. Default 1
                MiB.
            overflow: What happens when a stream exceeds ``output_limit``. ``"error"`` (default):
                anyspawn interrupts the code. ``"head"``, ``"tail"`` and ``"truncate"``: as for
                `anyspawn.spawn`.

        Returns:
            The result; its ``error`` holds the code's exception.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was run.
            TransportError: The connection to the box was lost, or the box has ended.
            SpawnError: A new interpreter was needed and could not start.
            anyio.ClosedResourceError: The session was closed.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be str, not {type(code).__name__}")
        command = Command(
            [self._program],
            stdin=code.encode(),
            timeout=timeout,
            grace=grace,
            output_limit=output_limit,
            overflow=overflow,
        )
        seconds = self._default_timeout if command.timeout == "default" else command.timeout
        async with self._lock:
            process = self._process or await self._start()
            return await self._run(process, command, math.inf if seconds is None else seconds)

    async def aclose(self) -> None:
        """Kill the interpreter and everything that the code started. It can be called more than
        once.
        """
        self._closed = True
        process = self._process
        if process is None:
            return
        try:
            with anyio.move_on_after(_LAST), suppress(SpawnError, anyio.ClosedResourceError):
                await process.stdin.aclose()
                await process.wait()
        finally:
            await process.aclose()

    # --- a run ------------------------------------------------------------------------------------

    async def _run(self, process: Process, command: Command, seconds: float) -> PythonResult:
        self._number += 1
        run = _Run(self._number, command)
        began = anyio.current_time()
        code = command.stdin or b""
        head = b"R %d %d %d\n" % (run.number, run.limit, len(code))
        start_in_background(
            self._exchange,
            process,
            run,
            head + code,
            name="anyspawn python run",
            if_cancelled=lambda: _say_done(run),
        )
        stopped: Literal["timeout", "output_limit"] | None = None
        try:
            with anyio.move_on_after(seconds) as scope:
                await run.news.wait()
            if scope.cancelled_caught:
                stopped = "timeout"
            elif run.overflowed:
                stopped = "output_limit"
            await self._settle(process, run, command.grace)
        except BaseException:
            await see_through(lambda: self._settle(process, run, command.grace), math.inf)
            raise
        if self._closed and run.dropped:
            raise anyio.ClosedResourceError
        out, err = run.outputs.values()
        said = None if run.dropped else run.said
        value, data, *failure = said or [None] * 5
        return PythonResult(
            value=value,
            data=_from_json(data),
            stdout=out.value(),
            stderr=err.value(),
            stdout_total=out.total,
            stderr_total=err.total,
            overflow=command.overflow,
            error=_failure(failure) or (None if said else _lost(process, run, stopped, seconds)),
            stopped=stopped,
            state_lost=run.dropped,
            duration=anyio.current_time() - began,
        )

    async def _settle(self, process: Process, run: _Run, grace: float) -> None:
        """Interrupt an unfinished run. Drop the interpreter if that does not help, if it exited, or
        if its output is not valid.
        """
        with anyio.move_on_after(grace) as scope:
            await run.sent.wait()
            if not run.done.is_set():
                # the reading task notices a lost connection
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await process.stdin.send(b"I %d\n" % run.number)
            await run.done.wait()
        if scope.cancelled_caught:  # half a message would garble the next one
            run.dropped = True
        if run.said is None or run.dropped:
            run.dropped = True
            self._process = None
            await process.aclose()
            await run.done.wait()

    async def _exchange(self, process: Process, run: _Run, request: bytes) -> None:
        """Send a request and read its frames, in a separate task: no frame is cut off when the
        caller is cancelled.
        """
        try:
            # the read below notices a lost connection
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await process.stdin.send(request)
            run.sent.set()
            while not await self._frame(process, run):
                pass
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, _Broken):
            pass  # no message came
        finally:
            _say_done(run)

    async def _frame(self, process: Process, run: _Run) -> bool:
        """Read a frame; return whether it was the last one of the run."""
        line = await self._read_line(process)
        found = re.fullmatch(rb"(?:([OER]) (\d{1,12})|X (-?\d{1,3}) (-?\d{1,12}))", line)
        if not found:
            raise _Broken
        word, size, status, number = found.groups()
        if word is None:
            run.status, run.between = int(status), int(number) != run.number
            return True
        if word == b"R":
            most = 5 * (run.limit + 100) + 200
            run.said = _fields(await self._read(process, int(size), most), run.limit + 100)
            return True
        run.outputs[word.decode()].keep(await self._read(process, int(size), _CHUNK))
        if run.overflowed:
            run.news.set()
        return False

    async def _read(self, process: Process, size: int, most: int) -> bytes:
        if size > most:
            raise _Broken
        got = bytearray(self._ahead)
        while len(got) < size:
            got += await process.stdout.receive()
        self._ahead = bytes(got[size:])
        return bytes(got[:size])

    async def _read_line(self, process: Process, most: int = 100) -> bytes:
        while b"\n" not in self._ahead:
            if len(self._ahead) > most:
                raise _Broken
            self._ahead += await process.stdout.receive()
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line

    # --- its start --------------------------------------------------------------------------------

    async def _start(self) -> Process:
        self._check_open()
        text = files(__package__).joinpath("inside.py").read_bytes()
        nonce = os.urandom(16).hex()
        argv = [self._program, "-c", _LOADER, nonce, str(len(text))]
        deadline = anyio.current_time() + self._default_timeout
        try:
            process = await Held(self._opening(argv), self._program).start()
        except NotStartedError as exc:
            if exc.kind != "not_found":
                raise
            reason = (
                f"there is no Python in the box: {exc.reason}. Use an image that has Python 3.8 or "
                "later, or name its interpreter: box.python(program)"
            )
            raise NotStartedError(reason, kind="not_found") from exc
        try:
            self._ahead = b""
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._greet(process, text, nonce.encode())
            self._check_open()  # another task may have closed it meanwhile
        except BaseException:
            await process.aclose()
            raise
        if scope.cancelled_caught:
            await process.aclose()
            seconds = f"{self._default_timeout:g} s"
            raise SpawnTimeoutError(f"{self._program!r} was not ready within {seconds}")
        self._process = process
        return process

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    async def _greet(self, process: Process, text: bytes, nonce: bytes) -> None:
        """Send the other half's code, and wait until it is ready."""
        try:
            await process.stdin.send(text)
            while True:
                word, _, version = (await self._read_line(process, _NOISE)).partition(b" ")
                if word == nonce:
                    self.version = version.decode("ascii", "replace")
                    return
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, _Broken):
            await process.aclose()
        done = process.completed
        if done is not None and isinstance(done.error, (NotStartedError, TransportError)):
            raise done.error
        said = f"it exited with status {done.returncode}" if done is not None else "it exited"
        if done is not None and done.stderr.strip():
            said = done.stderr_text.strip()[-_QUOTED:]
        raise NotStartedError(f"{self._program!r} is not Python 3.8 or later: {said}")


def _say_done(run: _Run) -> None:
    for event in (run.sent, run.done, run.news):
        event.set()


def _fields(body: bytes, most: int) -> list[str | None]:
    """Return the five texts of a result: value, data, and the error's type, message, traceback."""
    head, _, rest = body.partition(b"\n")
    if not re.fullmatch(rb"(-1|\d{1,12})( (-1|\d{1,12})){4}", head):
        raise _Broken
    said: list[str | None] = []
    for size in map(int, head.split()):
        if size > min(most, len(rest)):
            raise _Broken
        said.append(None if size < 0 else rest[:size].decode(errors="replace"))
        rest = rest[max(size, 0) :]
    return said


def _from_json(data: str | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):  # the code forged it
        return None


def _failure(said: list[str | None]) -> PythonFailure | None:
    kind, message, traceback = said
    if kind is None:
        return None
    return PythonFailure(type=kind, message=message or "", traceback=traceback or "")


def _lost(
    process: Process, run: _Run, stopped: Literal["timeout", "output_limit"] | None, seconds: float
) -> PythonFailure:
    """Return the failure of an interpreter that ended without sending a result.

    Raises:
        TransportError: The connection to it was lost.
    """
    gone = "the variables are lost"
    if run.between:
        message = f"the interpreter exited before this code, which did not run; {gone}"
        return PythonFailure(type="Exited", message=message)
    if run.status is not None:
        if run.status >= 0:
            message = f"the code ended its interpreter with status {run.status}; {gone}"
            return PythonFailure(type="Exited", message=message)
        message = f"the interpreter was killed by {_signal_name(-run.status)}; {gone}"
        return PythonFailure(type="Killed", message=message)
    if stopped is not None:
        why = {
            "timeout": f"the code timed out after {seconds:g} s",
            "output_limit": f"the code wrote more than {run.limit} bytes",
        }[stopped]
        message = f"{why}, did not react to KeyboardInterrupt, and was killed; {gone}"
        return PythonFailure(type="Killed", message=message)
    done = process.completed
    if done is not None and isinstance(done.error, TransportError):
        raise done.error
    said = done.error.message if done is not None and done.error is not None else "it ended"
    return PythonFailure(type="Killed", message=f"the interpreter was lost: {said}; {gone}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
