"""A live process: its caller reads and writes its streams while it runs.

It is a `Work` like any other. A separate task manages it, so that no cancellation interrupts that.
Output is passed on instead of kept: if the reader is slow, the pipe is not read, and the program
waits.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import attrs
from anyio.abc import ByteReceiveStream, ByteSendStream

from anyspawn._model import Command, Completed, Launch
from anyspawn._spawn.call import Work, conduct, never_started, open_work
from anyspawn._spawn.connection import Connection
from anyspawn._spawn.phase import Why
from anyspawn._spawn.streams import Feed, Output
from anyspawn._spawn.tasks import see_through, start_detached
from anyspawn._telemetry import Watched, watch_spawn
from anyspawn.exceptions import NotStartedError, SpawnError, SpawnTimeoutError, TransportError
from anyspawn.supervisor.encode import CHUNK, CLOSE, chunk_line
from anyspawn.supervisor.protocol import BROKE

__all__ = ["Process", "open_live"]

_AHEAD = 64 * 1024
"""Bytes of a stream that are read before the caller asks for them."""
_KEPT = 64 * 1024
"""Bytes of a stream that are kept for errors to quote."""
_LEFT = 2 * 2**20
"""Bytes that are read from a pipe at once when the program has exited: more than a pipe holds."""
_HELD = 0.1
_LOOK = 0.001
_ASK = 0.05
_SETTLE = 0.5
"""Seconds after which a program counts as started if nothing can prove it."""
_SIGNAL_TIMEOUT = 5.0
_WRITTEN = 2**20


@asynccontextmanager
async def open_live(
    launch: Launch, command: Command, *, mode: str, began: float, timeout: float
) -> AsyncIterator[Process]:
    """Start ``launch``, give the live process, and kill what is left of it at the end of the block.

    Args:
        launch: The local process.
        command: The command that it stands for.
        mode: What the sandbox is called in logs and spans.
        began: When the call began, on the event loop's clock.
        timeout: Seconds from then on that the program has to start.

    Raises:
        SpawnError: It did not start.
    """
    live = _Live(launch, command, mode, began, timeout)
    await live.begin()
    try:
        yield Process(live)
    finally:
        await live.close(Why.CLOSED)


class _Live:
    """One live process, from its start to its end.

    Args:
        launch, command, mode, began, timeout: As for `open_live`.

    Attributes:
        started, ended, done: The program has started; it has exited; nothing is left to wait for.
        returncode: The program's status, once it has exited.
        error: Why it did not start, or what failed later.
        completed: The outcome, once everything is done.
    """

    def __init__(
        self, launch: Launch, command: Command, mode: str, began: float, timeout: float
    ) -> None:
        self.started, self.ended, self.done = anyio.Event(), anyio.Event(), anyio.Event()
        self.stdout, self.stderr = _Reader(self), _Reader(self)
        self.stdin = _PipeWriter(self) if launch.task is None else _TalkWriter(self)
        self.returncode: int | None = None
        self.error: SpawnError | None = None
        self.completed: Completed | None = None
        self.pid = -1
        self._launch = launch
        self._command = attrs.evolve(
            command, output_limit=_KEPT, overflow="truncate", on_output=None
        )
        self._mode = mode
        self._began = began
        self._timeout = timeout
        self._raised: BaseException | None = None
        self._work: Work | None = None
        self._task: object = None
        self._scope = anyio.CancelScope()
        self._why: Why | None = None  # to end it
        self._judged: Completed | None = None

    @property
    def over(self) -> bool:
        """Whether the program has ended."""
        return self.ended.is_set()

    async def begin(self) -> None:
        """Start it, and wait until it has started.

        Raises:
            SpawnError: It did not start.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        program = self._command.argv[0]
        self._task = start_detached(self._look_after, name=f"anyspawn open {program}")
        try:
            with anyio.CancelScope(deadline=self._began + self._timeout):
                await self.started.wait()
        except BaseException:
            await self.close(Why.CLOSED)
            raise
        if self.started.is_set() and not isinstance(self.error, (NotStartedError, TransportError)):
            return
        await self.close(Why.CLOSED if self.started.is_set() else Why.TIMEOUT)
        cancelled = anyio.get_cancelled_exc_class()
        if self._raised is not None and not isinstance(self._raised, cancelled):
            raise self._raised
        if self.completed is None or self.completed.error is None:  # the loop is being closed
            raise TransportError(f"{program!r} was killed before it had started", started=None)
        raise self.completed.error

    async def close(self, why: Why) -> None:
        """Kill what is left of it, and wait for that, even if the caller is cancelled meanwhile."""
        if self._why is None:
            self._why = why
        if self._work is not None and not self._work.connection.child.ours:
            return  # a fork of this process leaves the block
        self._scope.cancel()
        if not self.done.is_set():
            await see_through(self.done.wait, math.inf)  # the clean-up is bounded

    async def _look_after(self) -> None:
        """Run it to its end, in a separate task, and never raise."""
        try:
            with watch_spawn(self._command, self._mode) as watched:
                self.completed = watched.came_to(await self._see_through(watched))
        except GeneratorExit:  # the loop is closed, and no task waits any more
            raise
        except BaseException as exc:
            self._raised = exc
        if self.completed is not None:
            if self.returncode is None:
                self.returncode = self.completed.returncode
            self.error = self.error or self.completed.error
        for event in (self.started, self.ended, self.done):
            event.set()
        self._shut_streams()

    def _shut_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.shut()

    async def _see_through(self, watched: Watched) -> Completed:
        work = await conduct(self._open, self._scope, self._attend, self._leave, watched)
        if isinstance(work, SpawnError):
            error = self._not_in_time() if isinstance(work, SpawnTimeoutError) else work
            return never_started(self._command, error, self._began)
        if work.raised is not None:
            self._raised, work.raised = work.raised, None
        completed = self._outcome(work)
        if self._judged is None and self.started.is_set() and work.connection.child.ours:
            return await self._examined(completed)
        return completed

    async def _examined(self, completed: Completed) -> Completed:
        """Return the outcome of a process that was killed, corrected by `Launch.examine`."""
        examine, known = self._launch.examine, [completed]
        if examine is None:
            return completed

        async def ask() -> None:
            with suppress(SpawnError):
                known.append(await examine(completed) or completed)

        await see_through(ask, math.inf)
        return known[-1]

    def _not_in_time(self) -> SpawnTimeoutError:
        program = self._command.argv[0]
        return SpawnTimeoutError(f"{program!r} was not started within {self._timeout:g} s")

    async def _open(self) -> Work:
        self._work = work = await open_work(self._launch, self._command, self._take)
        self.pid = work.connection.child.pid
        if isinstance(self.stdin, _PipeWriter):
            self.stdin.feed = work.connection.stdin
            os.set_blocking(self.stdin.feed.fd, False)
        return work

    async def _attend(self, work: Work) -> None:
        """Move data until the block is left."""
        try:
            await self._until_started(work)
            self.started.set()
            while True:
                await self._note_end(work)  # it may have exited before it could be watched
                if self._doubtful(work):
                    await self._turn_in_doubt(work)
                else:
                    await work.turn()
        finally:
            self.stdin.shut()

    async def _leave(self, work: Work) -> None:
        """Read what is left, as the caller no longer does, and find out what must be killed."""
        self._shut_streams()
        for reader in (self.stdout, self.stderr):
            reader.catch_up()
        if work.ended:
            await work.until_ended()  # it notes that
            await work.until_closed()
            await work.look_for_the_rest()
        else:
            work.stop(self._why or Why.CLOSED)

    async def _until_started(self, work: Work) -> None:
        settled = anyio.current_time() + _SETTLE
        launch = self._launch
        while not self.over and not self._under_way(work):
            short = work.connection.leader is not None and not launch.running
            with anyio.move_on_after(_LOOK if short else _ASK):
                await work.turn()
            await self._note_end(work)
            if launch.running:
                if not self.over and (await work.beside(launch.running)).stdout.strip():
                    return
            elif work.talk is None and anyio.current_time() > settled:
                return

    def _under_way(self, work: Work) -> bool:
        """Whether it is certain that the program has started."""
        if work.talk is not None:
            # A client that waits for its stdout to be read does not pass the report on.
            wrote = self.stdout.full or self.stderr.full
            return work.talk.report.running or (work.talk.report.started and wrote)
        if self._launch.leader is not None:
            leader = work.connection.leader
            return leader is not None and leader.has_become_another()
        return self._launch.runner is None and not self._launch.remote

    async def _note_end(self, work: Work) -> None:
        """Handle the exit of the program or its client."""
        if work.connection.child.exited and self._judged is None:
            await self._judge_end(work)
        elif work.ended and not self.over and work.talk is not None and work.talk.report.started:
            self.returncode = work.talk.report.exit_status
            self._say_ended()

    async def _judge_end(self, work: Work) -> None:
        """Determine the outcome, now that the local process has exited."""
        await work.connection.child.wait()
        for output, reader in self._streams(work):
            for data in output.read_rest(_LEFT):  # maybe a client's last message
                reader.put(data)
            if not output.open:
                work.connection.at_end(output)
            self._count_chunks(work)
        judged = work.outcome(self._began, self._timeout)
        if self._launch.examine is not None:
            judged = await self._launch.examine(judged) or judged
        self._judged = judged
        if isinstance(judged.error, (NotStartedError, TransportError)):
            self.error = judged.error
        if not self.over:
            self.returncode = judged.returncode
            self._say_ended()
        for output, reader in self._streams(work):
            if not output.open:
                reader.put(b"", end=True)

    def _streams(self, work: Work) -> tuple[tuple[Output, _Reader], ...]:
        return (work.connection.stdout, self.stdout), (work.connection.stderr, self.stderr)

    def _say_ended(self) -> None:
        self.ended.set()
        self.stdin.shut()

    def _outcome(self, work: Work) -> Completed:
        completed, judged = work.outcome(self._began, self._timeout), self._judged
        if work.state.why is Why.TIMEOUT:
            return attrs.evolve(completed, error=self._not_in_time())
        if judged is None:
            return completed
        return attrs.evolve(
            completed if judged.error is None else judged,
            returncode=judged.returncode,
            error=judged.error,
            output_incomplete=completed.output_incomplete,
            duration=completed.duration,
            cleanup=completed.cleanup,
            egress=judged.egress,
        )

    async def _take(self, work: Work, output: Output, data: bytes) -> None:
        self._count_chunks(work)
        reader = self.stdout if output.name == "stdout" else self.stderr
        # A lost connection can be distinguished from the stream's end only when the client has
        # exited.
        known = not self._launch.remote or self._judged is not None
        reader.put(data, end=not output.open and known)
        if reader.full and self._why is None and output.open:
            reader.wait_for_it(work.connection, output)

    def _doubtful(self, work: Work) -> bool:
        talk = work.talk
        return talk is not None and (talk.doubtful("stdout") or talk.doubtful("stderr"))

    async def _turn_in_doubt(self, work: Work) -> None:
        """Wait for data. If nothing follows a possible beginning of a frame, pass it on: its reader
        may have to answer first.
        """
        with anyio.move_on_after(_HELD):
            await work.turn()
            return
        for output, reader in self._streams(work):
            if work.talk is not None and work.talk.doubtful(output.name):
                data = work.talk.pass_on(output.name)
                output.capture.keep(data)
                reader.put(data)

    def _count_chunks(self, work: Work) -> None:
        if isinstance(self.stdin, _TalkWriter) and work.talk is not None:
            answers, work.talk.chunks = work.talk.chunks, []
            for answer in answers:
                self.stdin.taken(broken=answer == BROKE)

    def say(self, line: bytes) -> None:
        """Send a message to the supervisor."""
        if self._work is not None:
            self._work.connection.tell(line)

    async def send_signal(self, signum: int) -> None:
        """Send the program's process group a signal, if the program has not exited."""
        if self.over or self._work is None:
            return
        launch, connection = self._launch, self._work.connection
        program = self._command.argv[0]
        if launch.stop:
            name = signal.Signals(signum).name.removeprefix("SIG")
            argv = (*launch.stop[:-1], launch.stop[-1].removesuffix("TERM") + name)
            done = await self._work.beside(argv, _SIGNAL_TIMEOUT)
            if done.error is not None and not self.over:
                raise TransportError(f"{program!r} was not sent {name}: {done.error}", started=True)
        elif launch.remote:
            message = f"{program!r} cannot get a signal without a supervisor"
            raise TransportError(message, started=True)
        elif connection.leader is not None:
            connection.leader.signal_group(signum)
        else:
            connection.child.signal_group(signum)


class _Reader(ByteReceiveStream):
    """One of the program's output streams."""

    def __init__(self, live: _Live) -> None:
        self._live = live
        self._behind: tuple[Connection, Output] | None = None
        self._data = bytearray()
        self._at_end = False
        self._shut = False
        self._news = anyio.Event()
        self._guard = anyio.ResourceGuard("reading from")

    @property
    def full(self) -> bool:
        return len(self._data) >= _AHEAD

    def put(self, data: bytes, *, end: bool = False) -> None:
        """Take output that arrived."""
        if not self._shut:
            self._data += data
        self._at_end = self._at_end or end
        if data or end:
            self._news.set()

    def wait_for_it(self, connection: Connection, output: Output) -> None:
        """Stop reading the pipe until `catch_up`."""
        connection.pause(output)
        self._behind = connection, output

    def catch_up(self) -> None:
        """Read the pipe again."""
        behind, self._behind = self._behind, None
        if behind is not None:
            connection, output = behind
            connection.resume(output)

    def shut(self) -> None:
        """Close the stream: readers get an `anyio.ClosedResourceError`."""
        self._shut = True
        self._data.clear()
        self._news.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return at least one byte of what the program wrote, and at most ``max_bytes``.

        Raises:
            anyio.EndOfStream: There is no more.
            anyio.BrokenResourceError: The connection to the program was lost: there may be more.
            anyio.ClosedResourceError: The stream was closed, or the block left.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be 1 or more, not {max_bytes}")
        with self._guard:
            await anyio.lowlevel.checkpoint()
            while not self._data:
                if self._shut:
                    raise anyio.ClosedResourceError
                if self._at_end:
                    if isinstance(self._live.error, TransportError):
                        raise anyio.BrokenResourceError from self._live.error
                    raise anyio.EndOfStream
                self._news = anyio.Event()
                await self._news.wait()
            chunk = bytes(self._data[:max_bytes])
            del self._data[:max_bytes]
            if not self.full:
                self.catch_up()
            return chunk

    async def aclose(self) -> None:
        """Discard what the program writes from now on."""
        self.shut()
        self.catch_up()
        await anyio.lowlevel.checkpoint()


class _PipeWriter(ByteSendStream):
    """The program's standard input, a pipe."""

    def __init__(self, live: _Live) -> None:
        self.feed: Feed | None = None
        self._live = live
        self._waits = False
        self._guard = anyio.ResourceGuard("writing to")

    async def send(self, item: bytes) -> None:
        """Write all of ``item``; wait if the program does not read.

        After a cancellation, part of it may be written.

        Raises:
            anyio.BrokenResourceError: The program has ended, or closed its standard input.
            anyio.ClosedResourceError: The stream was closed, or the block left.
        """
        with self._guard:
            await anyio.lowlevel.checkpoint()
            rest = memoryview(item)
            while True:
                feed = self.feed
                if feed is None or feed.fd < 0:
                    raise (
                        anyio.BrokenResourceError if self._live.over else anyio.ClosedResourceError
                    )
                if not rest:
                    return
                try:
                    rest = rest[feed.write(rest[:_WRITTEN]) :]
                except BlockingIOError:
                    await self._until_room(feed.fd)
                except BrokenPipeError:
                    raise anyio.BrokenResourceError from None

    async def _until_room(self, fd: int) -> None:
        self._waits = True
        try:
            with suppress(anyio.ClosedResourceError):
                await anyio.wait_writable(fd)
        finally:
            self._waits = False

    def shut(self) -> None:
        """Close the descriptor; this needs no event loop."""
        if self.feed is not None and self.feed.fd >= 0:
            if self._waits:
                anyio.notify_closing(self.feed.fd)
            self.feed.close()

    async def aclose(self) -> None:
        """Let the program see the end of its standard input."""
        self.shut()
        await anyio.lowlevel.checkpoint()


class _TalkWriter(ByteSendStream):
    """The program's standard input, through the supervisor.

    A chunk that was begun is finished even if its sender is cancelled: the supervisor would misread
    a part of a line.
    """

    def __init__(self, live: _Live) -> None:
        self._live = live
        self._free = anyio.Event()
        self._free.set()
        self._owed = False  # an answer to a chunk
        self._ending = False
        self._closed = self._shut = False
        self._broken = False
        self._guard = anyio.ResourceGuard("writing to")

    async def send(self, item: bytes) -> None:
        """Like `_PipeWriter.send`; a cancelled call has written a whole number of chunks."""
        with self._guard:
            await anyio.lowlevel.checkpoint()
            if self._closed:
                raise anyio.ClosedResourceError
            rest, sent = memoryview(item), False
            while True:
                await self._free.wait()
                if self._live.over and self._owed and not self._broken:
                    await self._last_word()
                if sent and not rest and not self._owed and not self._broken:
                    return  # it was taken, whatever became of the program since
                if self._broken or self._live.over:
                    raise anyio.BrokenResourceError
                if self._closed or self._shut:
                    raise anyio.ClosedResourceError
                if not rest:
                    return
                sent = self._owed = True
                self._free = anyio.Event()
                self._live.say(chunk_line(bytes(rest[:CHUNK])))
                rest = rest[CHUNK:]

    async def _last_word(self) -> None:
        """Wait for the answer to a chunk, which may come after the report of the program's exit."""
        self._free = anyio.Event()
        try:
            with anyio.move_on_after(_SETTLE):
                await self._free.wait()
        finally:
            self._broken = self._broken or self._owed
            self._free.set()

    def taken(self, *, broken: bool) -> None:
        """Continue after a chunk was written, or refused."""
        self._owed = False
        self._broken = self._broken or broken
        if self._ending:
            self._live.say(CLOSE)
        self._free.set()

    def shut(self) -> None:
        """Accept no more data."""
        self._shut = True
        self._free.set()

    async def aclose(self) -> None:
        """Let the program see the end of its standard input."""
        if not (self._closed or self._shut):
            if self._free.is_set():
                self._live.say(CLOSE)
            else:
                self._ending = True  # after the current chunk
                self._free.set()
        self._closed = True
        await anyio.lowlevel.checkpoint()


class Process:
    """A live process; `anyspawn.open_process` and `anyspawn.start_process` give it.

    Attributes:
        stdin: Its standard input, an `anyio.abc.ByteSendStream`; ``await stdin.aclose()`` is its
            end of file.
        stdout: Its standard output, an `anyio.abc.ByteReceiveStream`. If you do not read it, the
            program waits.
        stderr: Its standard error, in the same way.
    """

    def __init__(self, live: _Live) -> None:
        self.stdin: ByteSendStream = live.stdin
        self.stdout: ByteReceiveStream = live.stdout
        self.stderr: ByteReceiveStream = live.stderr
        self._live = live
        self._close: Callable[[], Awaitable[None]] = lambda: live.close(Why.CLOSED)

    @property
    def pid(self) -> int:
        """The local process's pid. With `Direct` it is the program's, otherwise its runner's."""
        return self._live.pid

    @property
    def returncode(self) -> int | None:
        """The program's status, negative for a signal if `spawn` reports it so; ``None`` while the
        program runs, or if the status is unknown.
        """
        return self._live.returncode

    @property
    def completed(self) -> Completed | None:
        """The outcome, once it is closed or the block is left, with the beginning and the end of
        its output, 64 KiB of each stream.
        """
        return self._live.completed

    async def wait(self) -> int:
        """Wait until the program exits, and return its status.

        A program that waits for its output to be read does not exit: read both streams meanwhile.

        Raises:
            TransportError: The connection to it was lost, so its status is unknown.
            anyio.ClosedResourceError: The block was left, and its status is unknown.
        """
        await self._live.ended.wait()
        if self._live.returncode is not None:
            return self._live.returncode
        if self._live.error is not None:
            raise self._live.error
        raise anyio.ClosedResourceError

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the program and to what it started in its process group or container.
        Does nothing if the program has exited.

        Args:
            signum: Such as ``signal.SIGINT``.

        Raises:
            TransportError: It could not be sent.
        """
        await self._live.send_signal(signum)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the program's terminal (``tty=True``); the program gets a SIGWINCH.

        Args:
            rows, columns: 0 to 65535 characters. 24 by 80 at first.

        Raises:
            RuntimeError: It has no terminal.
            ValueError: A number is out of range.
            anyio.BrokenResourceError: It has ended.
        """
        raise RuntimeError("resize needs a terminal: open the process with tty=True")

    async def aclose(self) -> None:
        """Kill the program with everything that it started, if it still runs, and release all
        resources; ``completed`` is then the outcome.

        Any task can call it, more than once. If the caller is cancelled, it finishes first; then
        the cancellation continues.
        """
        await self._close()

    def __repr__(self) -> str:
        state = "running" if not self._live.over else f"returncode={self.returncode}"
        return f"<anyspawn.Process pid={self._live.pid} {state}>"
