"""A hook's server: one process that answers JSON-RPC 2.0 requests, each on one line.

The first call starts it; if it exits, the next call starts another. If it exits, calls that were
sent fail and are not sent again, because they can have had an effect. Calls that were not sent yet
go to the next process.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import anyio
from attrs import define, field

from anyspawn._call import open_process
from anyspawn._model import Command, Completed, Sandbox
from anyspawn._spawn.live import Process
from anyspawn._spawn.tasks import see_through, start_detached
from anyspawn._telemetry import warn
from anyspawn.exceptions import (
    ExitError,
    OutputLimitError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.hooks._json import is_object
from anyspawn.hooks._wire import WireError, decode_object

__all__ = ["CallError", "Served", "Server", "Servers"]

_IN_FLIGHT = 64
_PATIENCE = 3
"""After this many consecutive timeouts without an answer, anyspawn kills the process."""
_LAST_WORDS = 1.0
"""Seconds that the process has to exit after it closed its stdout."""
_MESSAGE = 500
_IDS = 2**53
"""Ids are random below this: every language's numbers can hold them, and they cannot be guessed."""
_NUMBER = re.compile(rb"\d{1,18}")
_SAYS = re.compile(rb"result|error|allow|\\u00", re.IGNORECASE)
_REMEMBERED = 1024
"""How many ids of finished calls are remembered, to recognise late and second answers."""


class CallError(Exception):
    """A call has no result; the message says why.

    Attributes:
        cause: The error behind it.
        completed: The outcome of the process, if that is the reason.
        answered: The error that the process answered, if it did.
    """

    def __init__(
        self,
        what: str,
        cause: Exception,
        completed: Completed | None = None,
        *,
        answered: str | None = None,
    ) -> None:
        super().__init__(what)
        self.cause = cause
        self.completed = completed
        self.answered = answered


@define(eq=False)
class _Call:
    """A running call.

    Args:
        line: The request.
        sent: Whether the process can have seen a part of it.
        done: Set when there is an answer or an error, or when the process is gone.
    """

    line: bytes
    sent: bool = False
    done: anyio.Event = field(factory=anyio.Event)
    answer: dict[str, Any] | None = None
    error: CallError | None = None


class Server:
    """A hook's server in one event loop.

    Args:
        name: The hook's name, for logs.
        sandbox: Where it runs.
        output_limit: The longest line of its output, in bytes.
    """

    def __init__(self, name: str, sandbox: Sandbox, output_limit: int) -> None:
        self._name = name
        self._sandbox = sandbox
        self._limit = output_limit
        self._places = anyio.CapacityLimiter(_IN_FLIGHT)
        self._life: _Life | None = None
        self._silent = 0

    async def call(
        self, command: Command, params: bytes, *, deadline: float, timeout: float
    ) -> dict[str, Any]:
        """Return the answer to one request: an object with ``result``.

        Args:
            command: How to start the process, if it does not run.
            params: What to ask, as JSON on one line.
            deadline: When the call times out, on the event loop's clock.
            timeout: The timeout in seconds, for messages.

        Raises:
            CallError: There is no answer.
        """
        place = object()
        with anyio.CancelScope(deadline=deadline):
            await self._places.acquire_on_behalf_of(place)
            try:
                return await self._ask(command, params, deadline)
            finally:
                self._places.release_on_behalf_of(place)
        raise CallError(
            f"failed: its server had not answered after {timeout:g} s", SpawnTimeoutError()
        )

    async def aclose(self) -> None:
        """Kill the process, if it runs, and wait for that. Running calls fail."""
        if self._life is not None:
            await self._life.end("it was closed")

    async def _ask(self, command: Command, params: bytes, deadline: float) -> dict[str, Any]:
        for last_try in (False, True):
            life = self._life
            if life is None or life.over:
                life = self._life = _Life(self._name, self._sandbox, command, self._limit)
            await life.started.wait()
            if life.refusal is not None:
                raise life.refusal
            if life.over:  # since it started
                await life.ended.wait()
                if last_try:
                    raise life.failure
                continue
            number = secrets.randbelow(_IDS - 1) + 1
            line = b'{"jsonrpc":"2.0","id":%d,"method":"execute","params":%b}\n' % (number, params)
            call = _Call(line)
            life.take(number, call)
            try:
                await call.done.wait()
                self._silent = 0
            finally:
                life.drop(call)
                if call.sent and not call.done.is_set() and anyio.current_time() >= deadline:
                    self._grow_impatient(life)
            if call.error is None:
                assert call.answer is not None
                return call.answer
            if call.sent or last_try:
                raise call.error
        raise AssertionError

    def _grow_impatient(self, life: _Life) -> None:
        self._silent += 1
        if self._silent >= _PATIENCE:
            self._silent = 0
            warn(
                "anyspawn.hooks",
                "hook %r: its server answered none of %d calls, and is killed",
                self._name,
                _PATIENCE,
            )
            life.stop(f"it had answered none of {_PATIENCE} calls in time")


class Servers:
    """The servers of one program, one for each event loop, and how many use them."""

    def __init__(self) -> None:
        self.by_loop: WeakKeyDictionary[Any, Server] = WeakKeyDictionary()
        self._users: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def get(self, name: str, sandbox: Sandbox, output_limit: int) -> Server:
        """Return the running loop's server; the first call makes it. Arguments as for `Server`."""
        loop = anyio.lowlevel.current_token().native_token
        if loop not in self.by_loop:
            self.by_loop[loop] = Server(name, sandbox, output_limit)
        return self.by_loop[loop]

    def hold(self) -> None:
        """Count a user of the running loop's server; `release` of the last user stops it."""
        loop = anyio.lowlevel.current_token().native_token
        self._users[loop] = self._users.get(loop, 0) + 1

    async def release(self) -> None:
        """Undo a `hold`."""
        loop = anyio.lowlevel.current_token().native_token
        self._users[loop] -= 1
        if not self._users[loop]:
            del self._users[loop]
            await self.aclose()

    async def aclose(self) -> None:
        """Stop the running loop's server, if it runs. A later call starts another."""
        server = self.by_loop.get(anyio.lowlevel.current_token().native_token)
        if server is not None:
            await server.aclose()


class Served:
    """The base of programs that can run as a server, which all users share."""

    __slots__ = ()

    timeout: float | None
    sandbox: Sandbox
    _servers: Servers

    def _seconds(self) -> float:
        """Return the timeout of a call, in seconds."""
        timeout = self.timeout or 0
        return timeout if timeout > 0 else getattr(self.sandbox, "default_timeout", 10.0)

    def hold(self) -> None:
        """Count a user of the program's server; `release` of the last user stops it."""
        self._servers.hold()

    async def release(self) -> None:
        """Undo a `hold`."""
        await self._servers.release()

    async def aclose(self) -> None:
        """Stop this event loop's server of the program, if it runs. A later call starts another."""
        await self._servers.aclose()

    async def __aenter__(self) -> Self:
        self.hold()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.release()


class _Life:
    """One process, from its start to its end, in a task that belongs to the event loop.

    Args:
        name: The hook's name.
        sandbox, command: What to start, and where.
        limit: The longest line of its output, in bytes.
    """

    def __init__(self, name: str, sandbox: Sandbox, command: Command, limit: int) -> None:
        self.started, self.ended = anyio.Event(), anyio.Event()
        self.over = False
        self.refusal: CallError | None = None
        self.failure = CallError("failed: its server runs", TransportError("", started=True))
        self._name = name
        self._sandbox = sandbox
        self._command = command
        self._limit = limit
        self._under_way: dict[int, _Call] = {}
        self._ids: dict[int, int] = {}  # of calls by their identity
        self._answered: deque[int] = deque(maxlen=_REMEMBERED)
        self._given_up: deque[int] = deque(maxlen=_REMEMBERED)
        self._to_send: deque[_Call] = deque()
        self._news = anyio.Event()
        self._scope = anyio.CancelScope()
        self._why = ""
        self._said: set[str] = set()
        self._code: int | None = None
        self._task = start_detached(self._live, name=f"anyspawn server of {name}")

    # --- what calls do ----------------------------------------------------------------------------

    def take(self, number: int, call: _Call) -> None:
        """Queue a call to be sent."""
        self._under_way[number] = call
        self._ids[id(call)] = number
        self._to_send.append(call)
        self._news.set()

    def drop(self, call: _Call) -> None:
        """Forget a call; ignore later answers to it."""
        number = self._ids.pop(id(call), 0)
        self._under_way.pop(number, None)
        believed = call.done.is_set() and call.error is None
        (self._answered if believed else self._given_up).append(number)
        if not call.sent and call in self._to_send:
            self._to_send.remove(call)

    def stop(self, why: str) -> None:
        """Kill the process."""
        self.over = True
        self._why = self._why or why
        self._scope.cancel()

    async def end(self, why: str) -> None:
        """Kill the process and wait for that, also if the caller is cancelled."""
        self.stop(why)
        if not self.ended.is_set():
            await see_through(
                self.ended.wait, float("inf")
            )  # which the clean-up of the process bounds

    # --- the course -------------------------------------------------------------------------------

    async def _live(self) -> None:
        process: Process | None = None
        error: Exception | None = None
        try:
            with self._scope:
                async with open_process(self._command, sandbox=self._sandbox) as process:
                    self.started.set()
                    await self._serve(process)
        except (
            Exception
        ) as exc:  # it did not start; or the sandbox is third-party code, which can raise anything
            error = exc
        except GeneratorExit:  # the loop was closed, and no call waits any more
            raise
        except BaseException:  # the loop is about to end
            self._settle(process, None)
            raise
        self._settle(process, error)

    async def _serve(self, process: Process) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drain, process)
            tasks.start_soon(self._write, process, tasks.cancel_scope)
            try:
                await self._read(process)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                await self._see_end(process)
            tasks.cancel_scope.cancel()

    async def _see_end(self, process: Process) -> None:
        with anyio.move_on_after(_LAST_WORDS):
            self._code = await process.wait()

    async def _drain(self, process: Process) -> None:
        try:
            while True:
                await process.stderr.receive()  # of which the outcome keeps the end
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass

    async def _write(self, process: Process, scope: anyio.CancelScope) -> None:
        try:
            while True:
                while self._to_send:
                    call = self._to_send.popleft()
                    call.sent = True
                    await process.stdin.send(
                        call.line
                    )  # whole, as nothing but the process's end cancels it
                self._news = anyio.Event()
                await self._news.wait()
        except anyio.BrokenResourceError:
            await self._see_end(process)
            scope.cancel()

    async def _read(self, process: Process) -> None:
        line, too_long = bytearray(), False
        while True:
            chunk = await process.stdout.receive()
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                if not too_long and len(line) + len(end) > self._limit:
                    self._too_long(bytes(line + end))
                elif not too_long:
                    self._hear(bytes(line) + end)
                line.clear()
                too_long = False
            if not too_long:
                line += rest
                if len(line) > self._limit:
                    self._too_long(bytes(line))
                    line.clear()
                    too_long = True
            if not line.lstrip().startswith(b"{"):
                self._deliver()  # otherwise the rest of that line may be a second answer

    def _deliver(self) -> None:
        for call in self._under_way.values():
            if call.answer is not None:
                call.done.set()

    # --- what the process says --------------------------------------------------------------------

    def _hear(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            answer = decode_object(line)
        except WireError as exc:
            self._unusable(line, str(exc))
            return
        number = answer.get("id")
        if "method" in answer and not answer.keys() & {"result", "error"}:
            self._complain("it printed a request, which was ignored")  # maybe an echo
        elif answer.get("jsonrpc") != "2.0" or "method" in answer:
            self._unusable(line, "its answer is not one by JSON-RPC 2.0")
        elif isinstance(number, bool) or not isinstance(number, int):
            self._unusable(line, "its answer has no id that is a whole number", whoever=True)
        else:
            self._answer(number, answer)

    def _answer(self, number: int, answer: dict[str, Any]) -> None:
        call = self._under_way.get(number)
        if call is None or not call.sent:
            if number in self._answered:
                self._complain("it answered a request twice, and is killed")
                self.stop("it answered a request twice")
            elif number not in self._given_up:
                self._complain("it answered a request that was never made")
            return  # else a late answer, to a call that was given up
        if call.answer is not None or call.error is not None:
            self._fail(call, "answered one request twice", WireError())
        elif ("result" in answer) == ("error" in answer):
            self._fail(call, "'s answer must have either result or error", WireError())
        elif "error" in answer:
            said = _told(answer["error"])
            self._fail(call, f" answered with {said}", ExitError(), answered=said)
        else:
            call.answer = answer

    def _fail(
        self, call: _Call, what: str, cause: Exception, *, answered: str | None = None
    ) -> None:
        """Fail a call, even if it has an answer already; the first failure counts."""
        said = what if what.startswith((" ", "'")) else f" {what}"
        error = CallError(f"failed: its server{said}", cause, answered=answered)
        call.error = call.error or error
        call.done.set()

    def _sent(self, line: bytes) -> list[_Call]:
        """Return the calls that were sent and whose ids are in a line."""
        numbers = {int(digits) for digits in _NUMBER.findall(line.replace(b"\0", b""))}
        return [call for number, call in self._under_way.items() if number in numbers and call.sent]

    def _unusable(self, line: bytes, why: str, *, whoever: bool = False) -> None:
        """Fail the calls whose answer an invalid line seems to be; ignore other lines.

        Args:
            line: The line.
            why: What is wrong with it.
            whoever: Whether it is certainly an answer: if it names no call, it may answer any of
                them.
        """
        says = _SAYS.search(line.replace(b"\0", b""))
        calls = self._sent(line) if says else []
        if not calls and says and (whoever or line.lstrip().startswith(b"{")):
            calls = [call for call in self._under_way.values() if call.sent]
        for call in calls:
            self._fail(call, f"'s answer cannot be used: {why}", WireError())
        if not calls:
            self._complain(
                "a line of its stdout is not a JSON-RPC 2.0 answer, and was ignored; "
                "diagnostics belong on stderr"
            )

    def _too_long(self, line: bytes) -> None:
        """Fail the call that a too long line answers; all calls, if it may answer any of them."""
        calls = self._sent(line) or [
            call for call in self._under_way.values() if call.sent and not call.done.is_set()
        ]
        for call in calls:
            self._fail(call, f" answered more than {self._limit} bytes", OutputLimitError())
        if not calls:
            self._complain(
                f"a line of its stdout has more than {self._limit} bytes, and was ignored"
            )

    def _complain(self, what: str) -> None:
        """Log what is wrong with the process, once. Never log the line itself, which may contain
        anything.
        """
        if what not in self._said:
            self._said.add(what)
            warn("anyspawn.hooks", "hook %r: %s", self._name, what)

    # --- the end ----------------------------------------------------------------------------------

    def _settle(self, process: Process | None, error: Exception | None) -> None:
        self.over = True
        completed = process.completed if process is not None else getattr(error, "completed", None)
        if process is None:
            what = (
                error.message
                if isinstance(error, SpawnError)
                else f"{type(error).__name__}: {error}"
            )
            if error is None:
                error, what = (
                    TransportError("", started=False),
                    f"its server was not started: {self._why or 'the event loop ends'}",
                )
            self.refusal = CallError(f"failed: {what}", error, completed)
        self.failure = self._said_of_end(error, completed)
        for call in list(self._under_way.values()):
            if not call.done.is_set():
                call.error = self.failure
                call.done.set()
        self.started.set()
        self.ended.set()

    def _said_of_end(self, error: Exception | None, completed: Completed | None) -> CallError:
        code = self._code
        cause = (
            error
            or (completed.error if completed is not None else None)
            or TransportError("", started=True)
        )
        if self._why:
            how, cause = (
                f"was killed before it answered: {self._why}",
                TransportError("", started=True),
            )
        elif isinstance(cause, TransportError) and str(cause):
            how = f"was lost before it answered: {cause}"
        elif code is not None and code >= 0:
            how = f"exited with status {code} before it answered"
        elif code is not None:
            how = f"was killed by signal {-code} before it answered"
        else:
            how = "closed its stdout before it answered, and was killed"
        return CallError(f"failed: its server {how}", cause, completed)


def _told(error: Any) -> str:
    """Return what an error of JSON-RPC says."""
    if not is_object(error) or not isinstance(error.get("message"), str):
        return "an error that has no message"
    code = error.get("code")
    number = f" {code}" if isinstance(code, int) and not isinstance(code, bool) else ""
    return f"error{number}: {error['message'][:_MESSAGE]}"
