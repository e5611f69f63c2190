"""One call, from its start to its outcome: read `run` first.

As long as nothing must be killed, everything happens in the caller's own task. Otherwise a separate
task does it under a shield (`see_through`), so that no cancellation of the caller, by a scope or by
asyncio, leaves processes behind.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from signal import SIGKILL
from typing import Any, Protocol

import anyio

from anyspawn._model import Cleanup, Command, Completed, Launch, LeavingCommand
from anyspawn._spawn import proc, remote
from anyspawn._spawn.connection import BOUNDS, STATUS_LIMIT, Connection, open_connection
from anyspawn._spawn.outcome import Seen, outcome
from anyspawn._spawn.phase import Event, Phase, State, Why
from anyspawn._spawn.streams import Capture, Feed, Output
from anyspawn._spawn.tasks import see_through, uninterrupted
from anyspawn._telemetry import Watched, watch_spawn
from anyspawn.exceptions import SpawnError, SpawnTimeoutError
from anyspawn.supervisor import Conversation
from anyspawn.supervisor.encode import head

__all__ = [
    "EndsWithIt",
    "Take",
    "Work",
    "conduct",
    "never_started",
    "no_place",
    "open_work",
    "run",
    "see_to_its_end",
]

_LAST_LOOKS = 64
_PIDS_PER_TURN = 128

Take = Callable[["Work", Output, bytes], Awaitable[None]]
"""Gets each chunk of a work's output."""


async def run(
    launch: Launch, command: Command, *, mode: str, began: float, timeout: float
) -> Completed:
    """Start ``launch``, take it through all its phases, and return its outcome.

    Args:
        launch: The local process.
        command: The command that it runs; its limits and callback apply.
        mode: The sandbox's name in logs and spans.
        began: When the call began, on the event loop's clock.
        timeout: Seconds from then until the program times out.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    with watch_spawn(command, mode) as watched:
        opening = partial(open_work, launch, command)
        work = await see_to_its_end(opening, began + timeout, watched)
        if isinstance(work, SpawnError):
            return watched.came_to(never_started(command, work, began))
        return watched.came_to(work.outcome(began, timeout))


async def see_to_its_end(
    open_work: Callable[[], Awaitable[Work]], deadline: float, watched: Watched
) -> Work | SpawnError:
    """Open a piece of work; return it when nothing of it is left, or why it did not start."""
    scope = anyio.CancelScope(deadline=deadline)

    async def finish(work: Work) -> None:
        if scope.cancelled_caught:
            await work.judge_deadline()
        await work.until_closed()
        await work.look_for_the_rest()

    # A KeyboardInterrupt is raised where the call waits, not between a fork and the line that
    # records it.
    course = uninterrupted(partial(conduct, open_work, scope, Work.until_ended, finish, watched))
    work = await course()
    if isinstance(work, Work) and work.raised is not None:
        try:
            raise work.raised
        finally:
            work.raised = None  # break the reference cycle
    return work


async def conduct(
    open_work: Callable[[], Awaitable[Work]],
    scope: anyio.CancelScope,
    attend: Callable[[Work], Awaitable[None]],
    finish: Callable[[Work], Awaitable[None]],
    watched: Watched,
) -> Work | SpawnError:
    """Take a piece of work through all its phases.

    Args:
        open_work: Opens it.
        scope: Bounds its opening and `attend`.
        attend: Moves its data until the program has exited.
        finish: Reads the rest; decides whether something must be killed.
        watched: Records it.

    Returns:
        The work, of which nothing is left, or the error if it did not start. Its ``raised`` is an
        exception that was raised meanwhile.
    """
    work: Work | None = None
    try:
        try:
            with scope:
                work = await open_work()
                work.deadline = scope.deadline
                watched.pid = work.connection.child.pid
                if work.connection.cancelled is not None:
                    raise work.connection.cancelled
                await attend(work)
            if work is None:
                return SpawnTimeoutError("the program was not started in time: no thread was free")
            await finish(work)
        except GeneratorExit:  # the loop was closed: nothing can be awaited any more
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
    return work


async def open_work(launch: Launch, command: Command, take: Take | None = None) -> Work:
    """Start the local process of a launch, as a piece of work.

    Args:
        launch: The local process.
        command: The command that it stands for.
        take: For a live program: gets its output; its stdin stays open.

    Raises:
        SpawnError: It did not start.
    """
    task, live, talk = launch.task, take is not None, None
    told = b"" if live else launch.stdin
    if task is not None:
        nonce = os.urandom(16).hex()
        told = task.before + head(
            command.id,
            nonce,
            task.env,
            None if live else len(task.stdin),
            task.cwd,
            merge=command.merge_stderr,
            leaves=isinstance(command, LeavingCommand),
        )
        talk = Conversation(nonce)
        if live:
            talk.expect_chunks()
        else:
            told += task.stdin
            talk.report.wants = bool(task.stdin)
    waits = task is not None
    stdin = partial(Feed, told, hold=live or waits, later=waits, stays=live and waits)
    merged = command.merge_stderr and not (waits or launch.remote)
    connection = await open_connection(launch, command.id, stdin, merged=merged)
    return Work(connection, command, talk, take=take)


def never_started(command: Command, error: SpawnError, began: float) -> Completed:
    """Return the outcome of a call whose local process did not start."""
    # `place` may have left something although it failed; its error says so.
    cleanup = Cleanup.NOT_NEEDED if error.completed is None else error.completed.cleanup
    duration = anyio.current_time() - began
    return Completed(argv=command.argv, duration=duration, error=error, cleanup=cleanup)


def no_place(command: Command, timeout: float) -> SpawnTimeoutError:
    """Return the error of a call that timed out while it waited for a slot."""
    program = command.argv[0]
    return SpawnTimeoutError(f"{program!r} was not started within {timeout:g} s: no slot was free")


class Ending(Protocol):
    """Decides what happens to a connection when its work is over."""

    async def left_nothing(self, work: Work) -> bool:
        """Return whether the work is over with nothing to kill; in bounded time."""

    async def end(self, work: Work) -> None:
        """Kill what is left, check until it is gone, and set ``work.cleanup``. Runs shielded."""

    def release(self, work: Work) -> None:
        """Release what the work holds, without awaiting anything."""


class Work:
    """One piece of work on a connection.

    Args:
        connection: The local process that carries it.
        command: The command.
        talk: The conversation with its supervisor, if there is one.
        ending: Decides what happens to the connection. Default: it ends with the work.
        take: Gets each chunk of output. Default: the command's callback gets it.

    Attributes:
        state: Its phase, and why it is being ended.
        raised: The exception that the caller gets when the call is settled.
        deadline: When it times out, on the event loop's clock.
        incomplete: A stream was still held when `wait_delay` ran out.
        cleanup: The result of the clean-up.
        leaves: Processes that it leaves may run on.
        unbegun: Its resident ended before it had started the command: another resident can take it.
        removed: The container or pod that a client had asked for was found and removed.
        task: The message for a resident as soon as it is ready.
        long_stdin: The stdin that it gets when it asks for it.
    """

    def __init__(
        self,
        connection: Connection,
        command: Command,
        talk: Conversation | None,
        *,
        ending: Ending | None = None,
        take: Take | None = None,
    ) -> None:
        self.connection = connection
        self.command = command
        self.talk = talk
        self.ending: Ending = EndsWithIt() if ending is None else ending
        self.state = State()
        self.raised: BaseException | None = None
        self.incomplete = self.removed = self.unbegun = False
        self.cleanup = Cleanup.NOT_NEEDED
        self.task = self.long_stdin = b""
        self.deadline = math.inf
        self.take = take or (None if command.on_output is None else Work._call_back)
        self._patience: anyio.CancelScope | None = None
        self.leaves = isinstance(command, LeavingCommand)
        for output in connection.outputs:
            output.stays = output.stays or self.leaves
            output.begin(Capture(command.output_limit, command.overflow), talk)

    @property
    def ended(self) -> bool:
        """Whether the program has exited: the local process has, or the supervisor says so."""
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
        """Whether the program may have started; a supervisor first waits for its task."""
        return self.talk is None or self.talk.report.ready

    def stop(self, why: Why) -> None:
        """Start to end the work."""
        self.state = self.state.after(Event.STOPPED, why)

    def give_up(self, exc: BaseException) -> None:
        """End it because of an exception, which the caller gets afterwards."""
        cancelled = isinstance(exc, anyio.get_cancelled_exc_class())
        if self.raised is None or not cancelled:
            self.raised = exc
        if self.state.phase is not Phase.SETTLED:
            self.stop(Why.CANCELLED if cancelled else Why.RAISED)

    async def until_ended(self) -> None:
        """Move data until the program has exited or must be killed."""
        while self.state.phase is Phase.RUNNING and not self.ended:
            await self.turn()
        self._note_end()

    def _note_end(self) -> None:
        if self.state.phase is Phase.RUNNING and self.ended:
            self.state = self.state.after(Event.EXITED)

    async def judge_deadline(self) -> None:
        """Decide that it timed out, unless the data that has arrived says that it exited in time:
        this process may have been stopped, or its loop busy, when it did.
        """
        with anyio.move_on_after(BOUNDS.settle):  # a callback may have taken long
            await self.serve_all()
        self.connection.child.look()
        self._note_end()
        if self.state.phase is Phase.RUNNING:
            self.stop(Why.TIMEOUT)

    async def until_closed(self) -> None:
        """Read until no process holds the output streams any more, or `wait_delay` is over."""
        if self.take is None and self._is_draining():
            await self.serve_all()  # output that has arrived counts, however short the delay
        if self.leaves and self.talk is None:
            return  # processes that hold a stream may run on
        if self.talk is not None and self._is_draining():
            # The delay begins when the supervisor has found that a process holds a stream.
            with self._patient(BOUNDS.remote):
                while self._is_draining() and not self.connection.child.exited:
                    if self.talk.report.held:
                        break
                    await self.turn()
        if self._is_draining():
            with self._patient(self.command.wait_delay):
                await self.serve_all()
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
        """Check whether the work left something running. Most leave nothing."""
        if self.state.phase is not Phase.DRAINING or self.incomplete:
            return
        nothing = await self.ending.left_nothing(self)
        if nothing and self.talk is not None and self.talk.report.killed:
            self.cleanup = Cleanup.CONFIRMED
        self.state = self.state.after(Event.GONE if nothing else Event.LEFT_SOMETHING)

    async def end(self) -> None:
        """Kill what is left, and check until it is gone, in bounded time."""
        if self.state.phase is Phase.DRAINING:
            self.state = self.state.after(Event.LEFT_SOMETHING)
        await self.ending.end(self)
        self.state = self.state.after(Event.GONE)

    def outcome(self, began: float, timeout: float) -> Completed:
        """Return the outcome, as far as it is known by now.

        Args:
            began: When the call began, on the event loop's clock.
            timeout: Seconds that it had.
        """
        connection, talk = self.connection, self.talk
        status = connection.reported()
        stdout, stderr = (output.capture for output in connection.outputs)
        seen = Seen(
            why=self.state.why,
            timeout=timeout,
            returncode=connection.child.returncode,
            exited=connection.child.exited,
            report=None if talk is None else talk.report,
            opening=b"" if talk is None else talk.opening("stderr") + talk.opening("stdout"),
            status=status,
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
        return outcome(connection.launch, self.command, seen)

    async def beside(self, argv: tuple[str, ...], seconds: float = BOUNDS.remote) -> Completed:
        """Run one of the sandbox's own commands while the work runs or is being ended."""
        command = Command(argv, timeout=seconds, output_limit=STATUS_LIMIT, overflow="truncate")
        now = anyio.current_time()
        return await run(Launch(argv=argv, stdin=b""), command, mode="", began=now, timeout=seconds)

    async def turn(self) -> None:
        """Wait until data can be moved or the process exits, and handle all of that."""
        await self.connection.wait()
        await self.serve()

    async def serve_all(self) -> None:
        """Handle what is ready, without waiting for more."""
        for _ in range(_LAST_LOOKS):
            if not (self.streams_open and await self.serve()):
                return

    async def serve(self) -> bool:
        """Handle everything that is ready; return whether there was something."""
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
            await self.take(self, output, data)
        if output.capture.overflowed and self.state.why is None:
            self.stop(Why.OVERFLOW)

    def _answer(self, output: Output, talk: Conversation) -> None:
        """Send the supervisor its task, and a long stdin when it asks for it.

        Close the connection to a supervisor that cannot continue: its remaining process then kills
        the rest of the command.
        """
        stdin = self.connection.stdin
        if stdin.fd < 0:
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
        # The time of the callback does not count as `wait_delay`.
        scope, began = self._patience, anyio.current_time()
        if scope is None:
            await result
            return
        left = scope.deadline - began
        scope.deadline = max(scope.deadline, self.deadline)
        await result
        scope.deadline = anyio.current_time() + left

    async def keep_raised(self, step: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a step of the clean-up; if the caller's callback raises, the rest still runs."""
        try:
            await step(*args)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as exc:
            self.give_up(exc)

    async def until_exit(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Move data until the process has exited, ``enough`` is true, or the time is up."""

        async def attend() -> None:
            while not self.connection.child.exited and not enough():
                await self.turn()

        with anyio.move_on_after(seconds):
            await anyio.lowlevel.checkpoint()  # a caller that repeats this must come to an end
            await self.keep_raised(attend)
            await self.keep_raised(attend)  # a callback that raised is not called again


class EndsWithIt:
    """Ends the connection together with its work."""

    def __init__(self) -> None:
        self._only_doubt = False  # the client exited by itself, but its request may go on

    async def left_nothing(self, work: Work) -> bool:
        """Reap the process; return whether nothing of its group or of remote work is left."""
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
        await connection.leader_gone()
        if connection.signal_group(SIGKILL):
            return False
        if remote.is_in_doubt(work):
            self._only_doubt = work.talk is None
            return False
        connection.settled = True
        return True

    async def end(self, work: Work) -> None:
        """Ask it to exit, kill it, and look for what it left."""
        connection, child = work.connection, work.connection.child
        grace = work.command.grace if not child.exited and work.state.why is not None else 0.0
        clean = False
        with remote.patience(connection.launch, grace + BOUNDS.cleanup) as patience:
            if not child.exited:
                await remote.end(work, grace if work.ready else 0.0, patience)
            await child.wait()
            await connection.leader_gone()
            connection.signal_group(SIGKILL)
            clean = await _sweep(connection.mark)
            await _group_gone(connection)
            clean = await remote.is_gone(work, patience) and clean
        seconds = BOUNDS.settle if work.incomplete else work.command.wait_delay
        await work.keep_raised(_collect_rest, work, seconds)
        work.incomplete = work.incomplete or work.streams_open
        clean = clean and not remote.may_come(work) and not work.streams_open
        sure = clean and child.exited and not patience.scope.cancelled_caught
        needless = self._only_doubt and not work.removed
        proved = Cleanup.NOT_NEEDED if needless else Cleanup.CONFIRMED
        work.cleanup = proved if sure else Cleanup.UNCONFIRMED
        connection.settled = sure

    def release(self, work: Work) -> None:
        """Close the connection, unless processes that were left run on."""
        if work.cleanup is not Cleanup.LEFT:
            work.connection.close()


async def _leaves_something(work: Work) -> bool:
    """Whether the program has left something that runs."""
    if work.talk is not None:
        return work.talk.report.left
    await work.connection.child.wait()
    mark = work.connection.mark
    return work.connection.child.group_alive() or (bool(mark) and proc.is_carried(mark))


async def _collect_rest(work: Work, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        while work.streams_open:
            await work.turn()
    if work.streams_open:  # a slow callback can hide the end of a stream
        work.take = None
        await work.serve_all()


async def _sweep(mark: bytes) -> bool:
    """Kill processes that left the group but carry the mark, until a search finds none.

    Returns:
        Whether the search was possible.
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
    except OSError:  # no descriptor left for the search, or no /proc
        return False


async def _group_gone(connection: Connection) -> None:
    pause = 0.0005
    while connection.child.group_alive():
        await anyio.sleep(pause)
        pause = min(pause * 2, 0.05)
