"""A call that stays open: its caller reads and writes the program's streams while it runs.

The course is that of `Call`, from pipes to clean-up, and so are its guarantees. Other than there,
it runs in a task of the event loop's own, so that neither the caller's cancellation nor another
task's is in its way, and it hands on what comes
instead of keeping it: a stream whose reader is behind is not read from the pipe, so that the
program waits.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

import anyio
import attrs
from anyio.abc import ByteReceiveStream, ByteSendStream

from anyspawn._model import Command, Completed, Launch
from anyspawn._spawn.background import start_detached
from anyspawn._spawn.core import Call, run, see_through
from anyspawn._spawn.group import WHOLE_GROUP, replaced
from anyspawn._spawn.pipes import Feed, Output, make_pipe, write_quietly
from anyspawn._telemetry import warn, watch_spawn
from anyspawn.exceptions import NotStartedError, SpawnError, SpawnTimeoutError, TransportError
from anyspawn.supervisor import BROKE, CHUNK, CLOSE, RUNNING, TAKEN, TOOK, line_of, streaming

__all__ = ["LiveCall", "Process", "open_process"]

_AHEAD = 64 * 1024
"""Bytes of a stream that are read before somebody asks for them."""
_KEPT = 64 * 1024
"""Bytes of a stream that are kept beside, for an error to quote and to be judged by."""
_LEFT = 2 * 2**20
"""Bytes that are taken from a pipe at once when the program has ended: more than a pipe holds."""
_HELD = 0.1
_LOOK = 0.001
_ASK = 0.05
_SETTLE = 0.5
"""Seconds after which a program counts as started where nothing can prove it."""
_SIGNAL_TIMEOUT = 5.0
_WRITTEN = 2**20

Examine = Callable[[Completed], Awaitable[Completed]]


@asynccontextmanager
async def open_process(
    launch: Launch,
    command: Command,
    *,
    mode: str,
    began: float,
    timeout: float,
    examine: Examine | None = None,
) -> AsyncIterator[Process]:
    """Start ``launch``, give the live process, and end what is left of it on the way out.

    Args:
        launch: The local process.
        command: The command that it stands for.
        mode: What the sandbox is called in logs and spans.
        began: When the call began, on the event loop's clock.
        timeout: Seconds from then on that the program has to start.
        examine: Returns an outcome with the right error, where it takes a question to the daemon or
        the API server to know.

    Raises:
        SpawnError: It did not start.
    """
    call = LiveCall(launch, command, mode, began, examine)
    await call.begin(began + timeout)
    try:
        yield Process(call)
    finally:
        await call.close()


class _Kept(Output):
    """An output stream of which the beginning and the end are kept beside what its reader gets."""

    def take(self) -> bytes:
        """Return what was kept; may be called again."""
        data = self._buffer.getvalue()
        turn = (
            self._head + self._next % self._tail
            if self.total > self._head + self._tail
            else self._head
        )
        return data[: self._head] + data[turn:] + data[self._head : turn]


class _Talk(Feed):
    """The supervisor's stdin: its head, then lines, each when the one before was taken.

    Its read end stays open here, so that a client that is gone is never a broken pipe.
    """

    def close_read_end(self) -> None:
        if self.fd < 0:
            super().close_read_end()

    def push(self, line: bytes) -> None:
        """Write a line as far as the pipe holds it."""
        os.set_blocking(self.fd, False)
        self._rest = memoryview(bytes(self._rest) + line)
        self.write()


class LiveCall(Call):
    """The course of one live process.

    Args:
        launch, command, mode, began, examine: As for `open_process`.
    """

    _stdin_type = _Talk
    _output_type = _Kept

    def __init__(
        self, launch: Launch, command: Command, mode: str, began: float, examine: Examine | None
    ) -> None:
        stdin = streaming(launch.stdin or b"") if launch.nonce else None
        kept = attrs.evolve(command, output_limit=_KEPT, overflow="truncate", on_output=None)
        super().__init__(attrs.evolve(launch, stdin=stdin), kept, began, math.inf)
        self.started, self.ended, self.done = anyio.Event(), anyio.Event(), anyio.Event()
        self.stdout, self.stderr = _Reader(self), _Reader(self)
        self.stdin: _PipeWriter | _TalkWriter = (
            _TalkWriter(self) if launch.nonce else _PipeWriter(self)
        )
        self.returncode: int | None = None
        self.error: SpawnError | None = None
        self._mode = mode
        self._examine = examine
        self._task: object = None
        self._scope: anyio.CancelScope | None = None
        self._why: Literal["closed", "timeout"] | None = None  # to end it
        self._timeout_of_start = math.inf
        self._judged: Completed | None = None
        self._draining = False
        self._leader_pid: int | None = None

    @property
    def over(self) -> bool:
        """Whether the program has ended."""
        return self.ended.is_set()

    async def begin(self, deadline: float) -> None:
        """Start it, and wait until it has started.

        Raises:
            SpawnError: It did not.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._timeout_of_start = deadline - self._began
        self._task = start_detached(self._look_after, name=f"anyspawn open {self._command.argv[0]}")
        try:
            with anyio.CancelScope(deadline=deadline):
                await self.started.wait()
        except BaseException:
            await self.close()
            raise
        if self.started.is_set() and not isinstance(self.error, (NotStartedError, TransportError)):
            return
        await self.close("closed" if self.started.is_set() else "timeout")
        if self.raised is not None and not isinstance(self.raised, anyio.get_cancelled_exc_class()):
            raise self.raised
        if self.completed is None or self.completed.error is None:  # the event loop is being closed
            raise TransportError(
                f"{self._command.argv[0]!r} was ended before it had started", started=None
            )
        raise self.completed.error

    async def close(self, why: Literal["closed", "timeout"] = "closed") -> None:
        """End what is left of it, and wait for that, whatever cancels the caller meanwhile."""
        if self._why is None:
            self._why = why
        if self._scope is not None:
            self._scope.cancel()
        if not self.done.is_set():
            await see_through(self.done.wait, math.inf)  # which is bounded by what it waits for

    async def _look_after(self) -> None:
        watch = watch_spawn(self._command, self._mode)
        try:
            await self.supervise()
        finally:
            if self.cleanup_failed:
                program = self._command.argv[0]
                warn(
                    "anyspawn.spawn",
                    "id=%s mode=%s: something of %r may still run",
                    self._command.id,
                    self._mode,
                    program,
                )
            if watch is not None:
                watch.end(self.completed, self.raised, self.pid)
            if not isinstance(
                self.raised, GeneratorExit
            ):  # the loop is closed, and nobody waits any more
                self._set_all()

    def _set_all(self) -> None:
        if self.completed is not None:
            if self.returncode is None:
                self.returncode = self.completed.returncode
            self.error = self.error or self.completed.error
        for event in (self.started, self.ended, self.done):
            event.set()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.shut()

    # --- the course -------------------------------------------------------------------------------

    async def _attend(self) -> None:
        with anyio.CancelScope() as self._scope:
            if self._why is not None:
                self._scope.cancel()
            await self._until_started()
            self.started.set()
            while True:
                await (self._turn_in_doubt() if self._doubtful else self._turn())
                await self._note_end()
        self._draining = True
        for stream in (self.stdout, self.stderr):
            stream.shut()
        self.stdin.shut()
        self._resume_all()
        if self._work_ended:
            await self._read_until_closed(self._command.wait_delay, stop_early=False)
            self._incomplete = self._streams_open
        if not self._exited and (self._streams_open or not self._work_ended):
            self._reason = self._why

    async def _note_end(self) -> None:
        """See what it means if the program, or its client, has ended."""
        assert self._selector is not None
        assert self._group is not None
        if self._exited and self._judged is None:
            self._exit_seen = True
            if self._group.pidfd in self._selector.get_map():
                self._selector.unregister(self._group.pidfd)
            await self._judge_end()
        elif (
            self._work_ended and not self.over and self._frames is not None and self._frames.started
        ):
            self.returncode = self._frames.exit_status
            self._say_ended()

    async def _until_started(self) -> None:
        settled = anyio.current_time() + _SETTLE
        while not self.over and not self._under_way():
            if self._launch.running:
                with anyio.move_on_after(_ASK):
                    await self._turn()
                await self._note_end()
                if not self.over and (await self._beside(self._launch.running)).stdout.strip():
                    return
            else:
                with anyio.move_on_after(_LOOK if self._leader >= 0 else _ASK):
                    await self._turn()
                await self._note_end()
                if self._frames is None and anyio.current_time() > settled:
                    return

    def _under_way(self) -> bool:
        """Whether it is sure that the program runs."""
        launch = self._launch
        if self._frames is not None:
            return RUNNING in self._frames.words
        if launch.leader is not None:
            return self._leader_pid is not None and replaced(self._leader_pid)
        return launch.runner is None and not launch.remote

    async def _judge_end(self) -> None:
        """Say how it came out, now that the local process has ended."""
        assert self._process is not None
        await self._process.wait()
        for output, reader in zip(self._outputs, (self.stdout, self.stderr), strict=False):
            self._take_left(output, reader)
        if self._status is not None:
            self._status.read_rest()
        outputs = list(self._outputs)
        judged = super()._outcome()
        self._outputs = outputs
        if self._examine is not None:
            judged = await self._examine(judged)
        self._judged = judged
        if isinstance(judged.error, (NotStartedError, TransportError)):
            self.error = judged.error
        if not self.over:
            self.returncode = judged.returncode
            self._say_ended()
        for output, reader in zip(self._outputs, (self.stdout, self.stderr), strict=False):
            if not output.open:
                reader.put(b"", end=True)

    def _take_left(self, output: Output, reader: _Reader) -> None:
        """Take what a pipe holds, which no one may ask for: the last words of a client are at its
        end.
        """
        if not output.open:
            return
        os.set_blocking(output.fd, False)
        taken = 0
        with suppress(BlockingIOError):
            while taken < _LEFT and not output.at_end:
                data = output.read()
                taken += len(data)
                reader.put(data)
        if output.at_end:
            self._forget(output)
        self._count_words()

    def _say_ended(self) -> None:
        self.ended.set()
        self.stdin.shut()

    def _outcome(self) -> Completed:
        if self._judged is None:
            return super()._outcome()
        out, err = (
            (self._outputs[0].take(), self._outputs[1].take())
            if self._judged.error is None
            else (None, None)
        )
        return attrs.evolve(
            self._judged,
            stdout=self._judged.stdout if out is None else out,
            stderr=self._judged.stderr if err is None else err,
            output_incomplete=self._incomplete,
            duration=anyio.current_time() - self._began,
            cleanup=self._cleanup,
        )

    def _judge(self, completed: Completed, command: Command) -> SpawnError | None:
        if self._reason == "timeout":
            return SpawnTimeoutError(
                f"{command.argv[0]!r} had not started after {self._timeout_of_start:g} s, and was ended"
            )
        if self._reason == "closed":
            return None  # it was ended because it was no longer wanted
        return super()._judge(completed, command)

    # --- events -----------------------------------------------------------------------------------

    def _open_pipes(self) -> tuple[int | None, int, int]:
        stdin, stdout, stderr = super()._open_pipes()
        if isinstance(self.stdin, _PipeWriter):
            stdin, self.stdin.fd = make_pipe()
            self._child_fds.append(stdin)
            os.set_blocking(self.stdin.fd, False)
        return stdin, stdout, stderr

    def _pin_leader(self, pid: int | None) -> None:
        super()._pin_leader(pid)
        self._leader_pid = pid if self._leader >= 0 else None

    async def _read(self, output: Output) -> None:
        data = output.read()
        if output.at_end:
            self._forget(output)
        if self._frames is not None and self._feeds and self._feeds[0].waiting:
            self._open_talks(output)
        self._count_words()
        if output is self._status:
            if self._leader < 0 and self._launch.leader is not None:
                self._pin_leader(self._launch.leader(output.so_far()))
            return
        reader = self.stdout if output is self._outputs[0] else self.stderr
        # That the connection was lost, rather than the stream's end come, is known with the
        # client's end.
        reader.put(
            data, end=output.at_end and (not self._launch.remote or self._judged is not None)
        )
        if reader.full and not self._draining and not output.at_end:
            assert self._selector is not None
            self._selector.unregister(output.fd)
            reader.paused = output

    @property
    def _doubtful(self) -> bool:
        return any(output.frames is not None and output.frames.doubtful for output in self._outputs)

    async def _turn_in_doubt(self) -> None:
        """Take a turn; hand on what may be the beginning of a frame, and is not followed by one:
        its reader may have to answer.
        """
        with anyio.move_on_after(_HELD):
            await self._turn()
            return
        for output, reader in zip(self._outputs, (self.stdout, self.stderr), strict=False):
            if output.frames is not None and output.frames.doubtful:
                data = output.frames.pass_on()
                output.keep(data)
                reader.put(data)

    def _forget(self, output: Output) -> None:
        assert self._selector is not None
        with suppress(KeyError):  # one whose reader is behind
            self._selector.unregister(output.fd)
        output.close()

    def _count_words(self) -> None:
        if isinstance(self.stdin, _TalkWriter) and self._frames is not None:
            for word in (TOOK, BROKE):
                while word in self._frames.words:
                    self._frames.words.remove(word)  # lest they become ever more
                    self.stdin.taken(broken=word == BROKE)

    def resume(self, reader: _Reader) -> None:
        """Read on from the pipe of a reader that caught up."""
        output, reader.paused = reader.paused, None
        if output is not None and output.open and self._selector is not None:
            self._selector.register(output.fd, selectors.EVENT_READ, output)

    def _resume_all(self) -> None:
        for reader in (self.stdout, self.stderr):
            self.resume(reader)

    def say(self, line: bytes) -> None:
        """Tell the supervisor something."""
        if self._feeds and self._selector is not None and self._feeds[0].fd >= 0:
            talk = self._feeds[0]
            assert isinstance(talk, _Talk)
            was_done = talk.done
            talk.push(line)
            if was_done and not talk.done:
                self._selector.register(talk.fd, selectors.EVENT_WRITE, talk)

    def _release(self) -> None:
        if isinstance(self.stdin, _PipeWriter):
            self.stdin.release()
        super()._release()

    async def send_signal(self, signum: int) -> None:
        """Send the program's process group a signal, if it has not ended."""
        if self.over or self._group is None:
            return
        if self._launch.stop:
            name = signal.Signals(signum).name.removeprefix("SIG")
            argv = (*self._launch.stop[:-1], self._launch.stop[-1].removesuffix("TERM") + name)
            command = Command(argv, timeout=_SIGNAL_TIMEOUT)
            asked = Launch(argv=argv)
            done = await run(
                asked, command, mode=self._mode, began=anyio.current_time(), timeout=_SIGNAL_TIMEOUT
            )
            if done.error is not None and not self.over:
                raise TransportError(
                    f"{self._command.argv[0]!r} was not sent {name}: {done.error}", started=True
                )
        elif self._launch.remote:
            raise TransportError(
                f"{self._command.argv[0]!r} cannot be sent a signal where it is without a supervisor",
                started=True,
            )
        elif self._leader >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._leader, signum, None, WHOLE_GROUP)
        else:
            self._group.send(signum)


class _Reader(ByteReceiveStream):
    """One of the program's output streams."""

    def __init__(self, call: LiveCall) -> None:
        self.paused: Output | None = None
        self._call = call
        self._data = bytearray()
        self._at_end = False
        self._shut = False
        self._news = anyio.Event()
        self._guard = anyio.ResourceGuard("reading from")

    @property
    def full(self) -> bool:
        return len(self._data) >= _AHEAD

    def put(self, data: bytes, *, end: bool = False) -> None:
        """Take what came."""
        if not self._shut:
            self._data += data
        self._at_end = self._at_end or end
        if data or end:
            self._news.set()

    def shut(self) -> None:
        """Take no more, and give no more: whoever reads gets a `anyio.ClosedResourceError`."""
        self._shut = True
        self._data.clear()
        self._news.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return at least one byte of what the program wrote, and at most ``max_bytes``.

        Raises:
            anyio.EndOfStream: There is no more.
            anyio.BrokenResourceError: There may have been more: the connection to the program was
            lost. anyio.ClosedResourceError: The stream was closed, or the block left.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be 1 or more, not {max_bytes}")
        with self._guard:
            await anyio.lowlevel.checkpoint()
            while not self._data:
                if self._shut:
                    raise anyio.ClosedResourceError
                if self._at_end:
                    if isinstance(self._call.error, TransportError):
                        raise anyio.BrokenResourceError from self._call.error
                    raise anyio.EndOfStream
                self._news = anyio.Event()
                await self._news.wait()
            chunk = bytes(self._data[:max_bytes])
            del self._data[:max_bytes]
            if self.paused is not None and not self.full:
                self._call.resume(self)
            return chunk

    async def aclose(self) -> None:
        """Throw away what the program writes from now on."""
        self.shut()
        self._call.resume(self)
        await anyio.lowlevel.checkpoint()


class _PipeWriter(ByteSendStream):
    """The program's standard input, a pipe."""

    def __init__(self, call: LiveCall) -> None:
        self.fd = -1
        self._call = call
        self._waits = False
        self._guard = anyio.ResourceGuard("writing to")

    async def send(self, item: bytes) -> None:
        """Write all of ``item``; wait where the program does not read.

        Cancelled meanwhile, part of it is written.

        Raises:
            anyio.BrokenResourceError: The program has ended, or closed its standard input.
            anyio.ClosedResourceError: The stream was closed, or the block left.
        """
        with self._guard:
            await anyio.lowlevel.checkpoint()
            rest = memoryview(item)
            while True:
                if self.fd < 0:
                    raise (
                        anyio.BrokenResourceError if self._call.over else anyio.ClosedResourceError
                    )
                if not rest:
                    return
                try:
                    rest = rest[write_quietly(self.fd, rest[:_WRITTEN]) :]
                except BlockingIOError:
                    await self._until_room()
                except BrokenPipeError:
                    raise anyio.BrokenResourceError from None

    async def _until_room(self) -> None:
        self._waits = True
        try:
            with suppress(anyio.ClosedResourceError):
                await anyio.wait_writable(self.fd)
        finally:
            self._waits = False

    def shut(self) -> None:
        if self.fd >= 0 and self._waits:
            anyio.notify_closing(self.fd)
        self.release()

    def release(self) -> None:
        """Close the descriptor, whether there is an event loop or not."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def aclose(self) -> None:
        """Let the program see the end of its standard input."""
        self.shut()
        await anyio.lowlevel.checkpoint()


class _TalkWriter(ByteSendStream):
    """The program's standard input, by way of the supervisor.

    A chunk that was begun is finished, whatever becomes of who sent it: a line that were cut off
    would be another line.
    """

    def __init__(self, call: LiveCall) -> None:
        self._call = call
        self._free = anyio.Event()
        self._free.set()
        self._owed = False  # an answer to a chunk
        self._ending = False
        self._closed = False
        self._broken = False
        self._guard = anyio.ResourceGuard("writing to")

    async def send(self, item: bytes) -> None:
        """As `_PipeWriter.send`; what was written when it is cancelled is a whole number of
        chunks.
        """
        with self._guard:
            await anyio.lowlevel.checkpoint()
            rest, sent = memoryview(item), False
            while True:
                await self._free.wait()
                if self._call.over and self._owed and not self._broken:
                    await self._last_word()
                if sent and not rest and not self._owed and not self._broken:
                    return  # it was taken, whatever became of the program since
                if self._broken or self._call.over:
                    raise anyio.BrokenResourceError
                if self._closed:
                    raise anyio.ClosedResourceError
                if not rest:
                    return
                sent = self._owed = True
                self._free = anyio.Event()
                self._call.say(line_of(bytes(rest[:CHUNK])))
                rest = rest[CHUNK:]

    async def _last_word(self) -> None:
        """Wait for the answer to a chunk, which may come after the word of the program's end."""
        self._free = anyio.Event()
        try:
            with anyio.move_on_after(_SETTLE):
                await self._free.wait()
        finally:
            self._broken = self._broken or self._owed
            self._free.set()

    def taken(self, *, broken: bool) -> None:
        """Go on, now that a chunk was written, or refused."""
        self._owed = False
        self._broken = self._broken or broken
        self._call.say(TAKEN)
        if self._ending:
            self._call.say(CLOSE)
        self._free.set()

    def shut(self) -> None:
        self._closed = True
        self._free.set()

    async def aclose(self) -> None:
        """Let the program see the end of its standard input."""
        if not self._closed:
            self._closed = True
            if self._free.is_set():
                self._call.say(CLOSE)
            else:
                self._ending = True  # after the chunk that is on its way
                self._free.set()
        await anyio.lowlevel.checkpoint()


class Process:
    """A live process; `anyspawn.open` gives it.

    Attributes:
        stdin: Its standard input, an `anyio.abc.ByteSendStream`; ``await stdin.aclose()`` is its
            end of file.
        stdout: Its standard output, an `anyio.abc.ByteReceiveStream`. What is not read makes the
            program wait.
        stderr: Its standard error, likewise.
    """

    def __init__(self, call: LiveCall) -> None:
        self.stdin: ByteSendStream = call.stdin
        self.stdout: ByteReceiveStream = call.stdout
        self.stderr: ByteReceiveStream = call.stderr
        self._call = call

    @property
    def pid(self) -> int:
        """The local process's number, the program's own with `Direct` and elsewhere its
        runner's.
        """
        pid = self._call.pid
        assert pid is not None
        return pid

    @property
    def returncode(self) -> int | None:
        """The program's status, negative for a signal where `spawn` has it so; ``None`` while it
        runs, or where it is not known.
        """
        return self._call.returncode

    @property
    def completed(self) -> Completed | None:
        """How it came out, once the block is left; with the beginning and the end of its output, 64
        KiB of each stream.
        """
        return self._call.completed

    async def wait(self) -> int:
        """Wait until the program has ended, and return its status.

        A program that waits for its output to be read does not end: read both streams meanwhile.

        Raises:
            TransportError: The connection to it was lost, so that its status is not known.
            anyio.ClosedResourceError: The block was left, and its status is not known.
        """
        await self._call.ended.wait()
        if self._call.returncode is not None:
            return self._call.returncode
        if self._call.error is not None:
            raise self._call.error
        raise anyio.ClosedResourceError

    async def send_signal(self, signum: int) -> None:
        """Send the program, and what it started in its process group or container, a signal.
        Nothing once it has ended.

        Args:
            signum: Such as ``signal.SIGINT``.

        Raises:
            TransportError: It could not be sent.
        """
        await self._call.send_signal(signum)

    def __repr__(self) -> str:
        state = "running" if not self._call.over else f"returncode={self.returncode}"
        return f"<anyspawn.Process pid={self._call.pid} {state}>"
