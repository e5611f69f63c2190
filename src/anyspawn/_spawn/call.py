"""One call, from its start to its outcome: `run` is what to read first.

Everything happens in the caller's own task as long as nothing has to be killed. Where something
has, a task of its own does it under a shield (`see_through`), so that no cancellation of the
caller's, native or a scope's, however often, leaves work behind.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from signal import SIGKILL
from typing import Any, Protocol

import anyio

from anyspawn._model import Cleanup, Command, Completed, Launch, LeavingCommand
from anyspawn._spawn import proc, remote
from anyspawn._spawn.connection import BOUNDS, STATUS_LIMIT, Connection, open_connection
from anyspawn._spawn.outcome import Seen, merged_here, outcome
from anyspawn._spawn.phase import Event, Phase, State, Why
from anyspawn._spawn.streams import Capture, Feed, Output
from anyspawn._spawn.tasks import on_asyncio, see_through
from anyspawn._telemetry import Watched, watch_spawn
from anyspawn.exceptions import SpawnError, SpawnTimeoutError
from anyspawn.supervisor import Conversation
from anyspawn.supervisor.encode import head

__all__ = [
    "EndsWithIt",
    "Work",
    "begin_talk",
    "leader_gone",
    "never_started",
    "new_nonce",
    "run",
    "see_to_its_end",
]

_LAST_LOOKS = 64
_PIDS_PER_TURN = 128


async def run(
    launch: Launch, command: Command, *, mode: str, began: float, timeout: float
) -> Completed:
    """Start ``launch``, see it through, and return what it came to.

    Args:
        launch: The local process.
        command: The command that it stands for; its limits and callback apply.
        mode: What the sandbox is called in logs and spans.
        began: When the call began, on the event loop's clock.
        timeout: Seconds from then on that the program has.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()

    async def open_work() -> Work:
        stdin, talk = begin_talk(launch, command)
        merged = merged_here(launch, command)
        connection = await open_connection(launch, command.id, stdin, merged=merged)
        return Work(connection, command, talk)

    with watch_spawn(command, mode) as watched:
        work = await see_to_its_end(open_work, began + timeout, watched)
        if isinstance(work, SpawnError):
            return watched.came_to(never_started(command, work, began))
        seen = work.seen(began, timeout)
        return watched.came_to(outcome(work.connection.launch, command, seen))


async def see_to_its_end(
    open_work: Callable[[], Awaitable[Work]], deadline: float, watched: Watched
) -> Work | SpawnError:
    """Open a piece of work, and return it when nothing of it is left, or why it did not start."""
    if on_asyncio():
        return await _see_to_its_end(open_work, deadline, watched)
    import trio

    # A KeyboardInterrupt is raised where the call waits, not between a fork and what notes it.
    protected = trio.lowlevel.enable_ki_protection(_see_to_its_end)
    return await protected(open_work, deadline, watched)


async def _see_to_its_end(
    open_work: Callable[[], Awaitable[Work]], deadline: float, watched: Watched
) -> Work | SpawnError:
    work: Work | None = None
    try:
        try:
            with anyio.CancelScope(deadline=deadline) as timeout:
                work = await open_work()
                work.deadline = deadline
                watched.pid = work.connection.child.pid
                await work.until_ended()
            if work is None:
                return SpawnTimeoutError("the program was not started in time: no thread was free")
            if timeout.cancelled_caught:
                await work.judge_deadline()
            await work.until_closed()
            await work.look_for_the_rest()
        except GeneratorExit:  # the loop was closed under us: nothing can be awaited any more
            raise
        except BaseException as exc:
            if work is not None:
                work.give_up(exc)
            elif isinstance(exc, SpawnError):
                return exc
            else:
                raise
        if work.state.phase is not Phase.SETTLED and work.connection.child.ours:
            await see_through(work.end, math.inf)
    finally:
        if work is not None:
            watched.unconfirmed = work.cleanup is Cleanup.UNCONFIRMED
            work.ending.release(work)
    if work.raised is not None:
        try:
            raise work.raised
        finally:
            work.raised = None  # it refers to this frame
    return work


def begin_talk(
    launch: Launch, command: Command
) -> tuple[Callable[[], Feed] | None, Conversation | None]:
    """Return what makes a local process's stdin, and the conversation if a supervisor reads it."""
    if launch.task is None:
        data = launch.stdin
        return (None if data is None else lambda: Feed(data)), None
    task, nonce = launch.task, new_nonce()
    size, merge = len(task.stdin), command.merge_stderr
    leaves = isinstance(command, LeavingCommand)
    told = head(command.id, nonce, task.env, size, task.cwd, merge=merge, leaves=leaves)
    told = task.before + told + task.stdin
    talk = Conversation(nonce)
    talk.report.wants = bool(task.stdin)
    return lambda: Feed(told, hold=True, later=True), talk


def new_nonce() -> str:
    """Return what a supervisor's frames begin with."""
    return os.urandom(16).hex()


def never_started(command: Command, error: SpawnError, began: float) -> Completed:
    """Return the outcome of a call whose local process did not start."""
    # A place that could not be had may be left all the same; what could not be had says so.
    cleanup = Cleanup.NOT_NEEDED if error.completed is None else error.completed.cleanup
    duration = anyio.current_time() - began
    return Completed(argv=command.argv, duration=duration, error=error, cleanup=cleanup)


class Ending(Protocol):
    """What becomes of a connection when its work is over."""

    async def left_nothing(self, work: Work) -> bool:
        """Return whether the work is over with nothing to kill; in bounded time."""

    async def end(self, work: Work) -> None:
        """Kill what is left, look until it is gone, and set ``work.cleanup``. Runs shielded."""

    def release(self, work: Work) -> None:
        """Give back what the work holds; nothing can be awaited."""


class Work:
    """One piece of work on a connection.

    Args:
        connection: The local process that carries it.
        command: The command.
        talk: The conversation with its supervisor, if there is one.
        ending: What becomes of the connection. Default: it ends with the work.
        take: Is given each chunk of output. Default: the command's callback is.

    Attributes:
        state: What it is in.
        raised: What reaches the caller when all is settled.
        deadline: When its time is over, on the event loop's clock.
        incomplete: A stream was still held when `wait_delay` ran out.
        cleanup: What became of what it left.
        take: Is given each chunk of output.
        leaves: What it leaves running is to stay.
        removed: What a client had asked for was seen, and removed.
        task: What a resident is told as soon as it is ready.
        long_stdin: What it is told when it asks for it.
    """

    def __init__(
        self,
        connection: Connection,
        command: Command,
        talk: Conversation | None,
        *,
        ending: Ending | None = None,
        take: Callable[[Output, bytes], Awaitable[None]] | None = None,
    ) -> None:
        self.connection = connection
        self.command = command
        self.talk = talk
        self.ending: Ending = EndsWithIt() if ending is None else ending
        self.state = State()
        self.raised: BaseException | None = None
        self.incomplete = False
        self.cleanup = Cleanup.NOT_NEEDED
        self.removed = False
        self.task = self.long_stdin = b""
        self.deadline = math.inf
        self.take = take or (None if command.on_output is None else self._call_back)
        self._patience: anyio.CancelScope | None = None
        self.leaves = isinstance(command, LeavingCommand)
        for output in connection.outputs:
            output.stays = output.stays or self.leaves
            output.begin(Capture(command.output_limit, command.overflow), talk)

    # --- what is true of it -----------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the program has ended: the local process has, or the supervisor says so."""
        talk = self.talk
        return self.connection.child.exited or (
            talk is not None and talk.report.exit_status is not None
        )

    @property
    def streams_open(self) -> bool:
        """Whether more output may come."""
        return self.connection.stdout.open or self.connection.stderr.open

    @property
    def ready(self) -> bool:
        """Whether something can have been begun: a supervisor waits for its task before it is."""
        return self.talk is None or self.talk.report.ready

    def stop(self, why: Why) -> None:
        """Have the work ended."""
        self.state = self.state.after(Event.STOPPED, why)

    def give_up(self, exc: BaseException) -> None:
        """Have it ended for what was raised, which reaches the caller afterwards."""
        cancelled = isinstance(exc, anyio.get_cancelled_exc_class())
        if self.raised is None or not cancelled:
            self.raised = exc
        if self.state.phase is not Phase.SETTLED:
            self.stop(Why.CANCELLED if cancelled else Why.RAISED)

    # --- its course -------------------------------------------------------------------------------

    async def until_ended(self) -> None:
        """Move data until the program has ended, or something says to end it."""
        if self.connection.cancelled is not None:
            raise self.connection.cancelled
        while self.state.phase is Phase.RUNNING and not self.ended:
            await self.turn()
        self._note_end()

    def _note_end(self) -> None:
        if self.state.phase is Phase.RUNNING and self.ended:
            self.state = self.state.after(Event.EXITED)

    async def judge_deadline(self) -> None:
        """Say that it timed out, unless what has come meanwhile says that it ended in time.

        The host may have been stopped, or its loop busy, when it ended.
        """
        with anyio.move_on_after(BOUNDS.settle):  # a callback may take its time
            await self.serve_all()
        self.connection.child.look()
        self._note_end()
        if self.state.phase is Phase.RUNNING:
            self.stop(Why.TIMEOUT)

    async def until_closed(self) -> None:
        """Read on until nobody holds the output streams any more, or `wait_delay` is over."""
        if self.take is None and self._is_draining():
            await self.serve_all()  # what is there already counts, however short the delay
        if self.leaves and self.talk is None:
            return  # who holds a stream is to run on
        if self.talk is not None and self._is_draining():
            # Only when the supervisor has looked, and saw a stream held, the time begins.
            with self._patient(BOUNDS.remote):
                while self._is_draining() and not self.connection.child.exited:
                    if self.talk.report.held:
                        break
                    await self.turn()
        if self._is_draining():
            with self._patient(self.command.wait_delay):
                await self.serve_all()  # what is there already counts, however short the delay
                while self._is_draining():
                    await self.turn()
            self.incomplete = self.streams_open

    def _is_draining(self) -> bool:
        return self.state.phase is Phase.DRAINING and self.streams_open

    @contextmanager
    def _patient(self, seconds: float) -> Iterator[None]:
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as self._patience:
            yield
        self._patience = None

    async def look_for_the_rest(self) -> None:
        """See whether the work left something, which is what most do not."""
        if self.state.phase is not Phase.DRAINING or self.incomplete:
            return
        nothing = await self.ending.left_nothing(self)
        if nothing and self.talk is not None and self.talk.report.killed:
            self.cleanup = Cleanup.CONFIRMED
        self.state = self.state.after(Event.GONE if nothing else Event.LEFT_SOMETHING)

    async def end(self) -> None:
        """Kill what is left, and look until it is gone, in bounded time."""
        if self.state.phase is Phase.DRAINING:
            self.state = self.state.after(Event.LEFT_SOMETHING)
        await self.ending.end(self)
        self.state = self.state.after(Event.GONE)

    def seen(self, began: float, timeout: float) -> Seen:
        """Return what was seen of it."""
        connection, talk = self.connection, self.talk
        if connection.status is not None:
            connection.drain_status()
        stdout, stderr = (output.capture for output in connection.outputs)
        return Seen(
            why=self.state.why,
            timeout=timeout,
            returncode=connection.child.returncode,
            exited=connection.child.exited,
            report=None if talk is None else talk.report,
            opening=b"" if talk is None else talk.opening("stderr") + talk.opening("stdout"),
            status=b"" if connection.status is None else connection.status.capture.value(),
            stdout=stdout.value(),
            stderr=stderr.value(),
            stdout_total=stdout.total,
            stderr_total=stderr.total,
            overflow=self.command.overflow,
            overflowed="stdout" if stdout.overflowed else "stderr" if stderr.overflowed else None,
            incomplete=self.incomplete,
            duration=anyio.current_time() - began,
            cleanup=self.cleanup,
            reached=connection.reached(),
        )

    async def beside(self, argv: tuple[str, ...], seconds: float = BOUNDS.remote) -> Completed:
        """Run a command of the sandbox's own while the work goes on, or is being ended."""
        command = Command(argv, timeout=seconds, output_limit=STATUS_LIMIT, overflow="truncate")
        now = anyio.current_time()
        return await run(Launch(argv=argv, stdin=b""), command, mode="", began=now, timeout=seconds)

    # --- moving data ------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Wait until something can be moved, or the process exits, and deal with all of it."""
        await self.connection.wait()
        await self.serve()

    async def serve_all(self) -> None:
        """Deal with what is there, without waiting for more."""
        for _ in range(_LAST_LOOKS):
            if not (self.streams_open and await self.serve()):
                return

    async def serve(self) -> bool:
        """Deal with all that is ready; return whether there was something."""
        sources = self.connection.ready()
        for source in sources:
            if isinstance(source, Output):
                await self._read(source)
            else:
                self.connection.pump(source)
        return bool(sources)

    async def _read(self, output: Output) -> None:
        data, connection = output.read(), self.connection
        if output.eof or (output.at_end and not output.stays):
            connection.at_end(output)
        if output is connection.status:
            connection.note_status()
            return
        if self.talk is not None:
            self._answer(output, self.talk)
        if self.take is not None and self.state.why is not Why.RAISED:
            await self.take(output, data)
        if output.capture.overflowed and self.state.why is None:
            self.stop(Why.OVERFLOW)

    def _answer(self, output: Output, talk: Conversation) -> None:
        """Tell the supervisor its task as soon as it is there, and a long stdin when it asks; hang
        up on one that cannot go on, so that what is left of it ends what is left of the command.
        """
        stdin = self.connection.stdin
        if stdin is None or stdin.fd < 0:
            return
        if talk.report.failed:
            self.connection.hang_up()
            return
        if stdin.waiting:
            if talk.report.ready or talk.report.asks:
                stdin.begin()
                self.connection.pump(stdin)
            elif output.name == "stdout" and talk.opening("stdout"):
                self.connection.hang_up()  # on a client that asks a question
        elif self.task and talk.report.ready:
            data, self.task = self.task, b""
            self.connection.tell(data)
        elif self.long_stdin and talk.report.send:
            data, self.long_stdin = self.long_stdin, b""
            self.connection.tell(data)

    async def _call_back(self, output: Output, data: bytes) -> None:
        on_output = self.command.on_output
        result = on_output(output.name, data) if on_output is not None and data else None
        if not inspect.isawaitable(result):
            return
        # The callback's time is not the time that descendants have to let go of a stream.
        scope, began = self._patience, anyio.current_time()
        if scope is None:
            await result
            return
        left = scope.deadline - began
        scope.deadline = max(scope.deadline, self.deadline)
        await result
        scope.deadline = anyio.current_time() + left

    async def keep_raised(self, step: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Take a step of the clean-up; what the caller's callback raises does not stop the rest."""
        try:
            await step(*args)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as exc:
            self.give_up(exc)

    async def until_exit(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Move data until the process has exited, or ``enough`` says so, for so long at most."""

        async def attend() -> None:
            while not self.connection.child.exited and not enough():
                await self.turn()

        with anyio.move_on_after(seconds):
            await self.keep_raised(attend)
            await self.keep_raised(attend)  # a callback that raised is not called any more


class EndsWithIt:
    """The ending of a connection that ends with its work."""

    async def left_nothing(self, work: Work) -> bool:
        """Reap the process; return whether nothing of its group, or far away, is left."""
        connection = work.connection
        if isinstance(work.command, LeavingCommand) and await _leaves_something(work):
            if work.command.keep(work):
                work.cleanup = Cleanup.LEFT
                return True
            return False
        if not connection.child.exited:  # a supervisor's client has closed its streams first
            with anyio.move_on_after(BOUNDS.remote):
                await connection.child.wait()
        if not connection.child.exited:
            return False
        await connection.child.wait()
        await leader_gone(connection)
        if connection.signal_group(SIGKILL) or remote.is_in_doubt(work):
            return False
        connection.settled = True
        return True

    async def end(self, work: Work) -> None:
        """Ask it to end, kill it, and look for what it left."""
        connection, child = work.connection, work.connection.child
        grace = work.command.grace if not child.exited and work.state.why is not None else 0.0
        clean = False
        with remote.patience(connection.launch, grace + BOUNDS.cleanup) as patience:
            if not child.exited:
                await remote.end(work, grace if work.ready else 0.0, patience)
            await child.wait()
            await leader_gone(connection)
            connection.signal_group(SIGKILL)
            clean = await _sweep(connection.mark)
            await _group_gone(connection)
            clean = await remote.is_gone(work, patience) and clean
        seconds = BOUNDS.settle if work.incomplete else work.command.wait_delay
        await work.keep_raised(_collect_rest, work, seconds)
        work.incomplete = work.incomplete or work.streams_open
        clean = clean and not remote.may_come(work) and not work.streams_open
        sure = clean and child.exited and not patience.scope.cancelled_caught
        work.cleanup = Cleanup.CONFIRMED if sure else Cleanup.UNCONFIRMED
        connection.settled = sure

    def release(self, work: Work) -> None:
        """Close the connection, unless what was left runs on."""
        if work.cleanup is not Cleanup.LEFT:
            work.connection.close()


async def _leaves_something(work: Work) -> bool:
    """Whether the program has left something that runs."""
    if work.talk is not None:
        return work.talk.report.left
    await work.connection.child.wait()
    mark = work.connection.mark
    return work.connection.child.group_alive() or (bool(mark) and proc.is_carried(mark))


async def leader_gone(connection: Connection) -> None:
    """End who leads the work, where that is not the local process, and wait for that."""
    if connection.leader >= 0:
        proc.kill_pinned(connection.leader)
        await anyio.wait_readable(connection.leader)
        proc.reap_pinned(connection.leader)


async def _collect_rest(work: Work, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        while work.streams_open:
            await work.turn()
    if work.streams_open:  # a callback that took all the time hides the end of a stream
        work.take = None
        await work.serve_all()


async def _sweep(mark: bytes) -> bool:
    """Kill what left the group but carries the mark, until a look finds none.

    Returns:
        Whether one could look.
    """
    if not mark:
        return False
    pause = 0.001
    patience = anyio.current_time() + BOUNDS.doubt
    try:
        while True:
            found = doubt = False
            for count, hit in enumerate(proc.sweep(mark)):
                found, doubt = found or hit is True, doubt or hit is None
                if count % _PIDS_PER_TURN == _PIDS_PER_TURN - 1:
                    await anyio.lowlevel.checkpoint()
            if found:
                patience = anyio.current_time() + BOUNDS.doubt
            elif not doubt or anyio.current_time() > patience:
                return True
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.05)
    except OSError:  # no descriptor left to look with, or no /proc
        return False


async def _group_gone(connection: Connection) -> None:
    pause = 0.0005
    while connection.child.group_alive():
        await anyio.sleep(pause)
        pause = min(pause * 2, 0.05)
