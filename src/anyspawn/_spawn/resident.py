"""Residents: supervisors that stay, and the calls that they serve one after the other.

A resident is opened by the first call that needs one, and kept by each call whose command was seen
to be gone, with nothing left of it; where that cannot be seen it ends with the call, as if it had
been the call's own. So no call ever meets what another one left behind.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from weakref import finalize

import anyio

from anyspawn._model import Cleanup, Command, Completed, Launch
from anyspawn._spawn import remote
from anyspawn._spawn.call import (
    EndsWithIt,
    Work,
    leader_gone,
    never_started,
    new_nonce,
    see_to_its_end,
)
from anyspawn._spawn.changes import Changes
from anyspawn._spawn.connection import BOUNDS, Connection, open_connection
from anyspawn._spawn.outcome import outcome
from anyspawn._spawn.streams import Feed
from anyspawn._spawn.tasks import (
    PerLoop,
    place_within,
    see_through,
    start_in_background,
    uninterrupted,
)
from anyspawn._telemetry import Watched, watch_spawn
from anyspawn.exceptions import SpawnError, SpawnTimeoutError, TransportError
from anyspawn.supervisor import Conversation, Report, resident_begin
from anyspawn.supervisor.encode import SHORT, call_line, tag_of, task_line

__all__ = ["Pool", "Pools"]

_KILL_AGAIN = 0.3
_SIGNALLED = 128
_OWN_STATUSES = 125
"""What is above is also said of a program that was never executed."""
_SETSID_FAILED = re.compile(rb"setsid: [^\n]*\n")
_MOST_KNOWN = 100
_MOST_TOLD = 64 * 1024
"""Bytes of arguments and variables that every system takes."""
_LONGEST_SLEEP = 3600.0  # an event loop may not know how to sleep forever


class _Resident:
    """A supervisor that stays.

    Attributes:
        begun: It was given its script, and has begun a command.
        known: The programs that it has executed, each with what it was found by, and whether any
            exec executes them.
        noted: It is watched for changes of its place.
        close: Gives everything back, at once.
    """

    def __init__(
        self, connection: Connection, resident_id: str, changes: Changes | None = None
    ) -> None:
        self.connection = connection
        self.id = resident_id
        self.begun = False
        self.known: dict[Hashable, bool] = {}
        self.idle_since = 0.0
        self.noted = changes is not None
        for output in connection.outputs:
            output.stays = True
        self.close = finalize(self, _close, connection, os.getpid(), changes, resident_id)

    @classmethod
    async def open(cls, launch: Launch, changes: Changes | None = None) -> _Resident:
        """Begin one, which is told nothing yet.

        Args:
            launch: How.
            changes: Is to note where it is.

        Raises:
            SpawnError: It did not start.
        """
        resident_id = os.urandom(16).hex()
        filled = launch.filled(id=resident_id, tag=str(tag_of(resident_id)))
        if changes is not None:
            changes.expect(resident_id)
        connection = await open_connection(
            filled, resident_id, lambda: Feed(hold=True, later=True, stays=True)
        )
        return cls(connection, resident_id, changes)

    @property
    def stdin(self) -> Feed:
        """The pipe that it is told by."""
        assert self.connection.stdin is not None  # as `open` made it
        return self.connection.stdin

    @property
    def alive(self) -> bool:
        return self.stdin.fd >= 0 and not self.connection.child.look()

    def say(self, word: bytes) -> None:
        """Tell it a word, unless it cannot take it."""
        if self.stdin.fd >= 0 and self.stdin.done:
            with suppress(BlockingIOError):
                os.set_blocking(self.stdin.fd, False)
                os.write(self.stdin.fd, word)

    async def retire(self) -> None:
        """Have it end by itself; end it where it does not."""
        connection = self.connection
        try:
            connection.hang_up()
            with anyio.move_on_after(BOUNDS.cleanup - 1) as patience:
                await connection.child.wait()
                connection.settled = (connection.child.returncode or 0) >= 0
            if patience.cancelled_caught:
                connection.signal_group(signal.SIGKILL)
                await connection.child.wait()
        finally:
            self.close()


def _close(connection: Connection, host: int, changes: Changes | None, resident_id: str) -> None:
    if changes is not None:
        changes.forget(resident_id)
    if os.getpid() == host:
        if connection.child.exited_by_itself and not connection.doubtful:
            connection.settled = True
        connection.close()


class _Lease:
    """One call's use of a resident: how its work is opened, and what becomes of the resident.

    Args:
        pool: Where the resident comes from, and goes back to.
        launch: How to begin one.
        command: The command.
        resident: One that waits, if there is.

    Attributes:
        unbegun: The resident ended before it had begun the command, as far as that can be proved.
    """

    def __init__(
        self, pool: Pool, launch: Launch, command: Command, resident: _Resident | None
    ) -> None:
        self.unbegun = False
        self._pool = pool
        self._launch = launch
        self._command = command
        self._resident = resident
        self._kept = False
        self._alone = EndsWithIt()
        self._program = (command.argv[0], command.env.get("PATH"), command.cwd)
        self._asks = False

    async def open_work(self) -> Work:
        """Tell a resident its task.

        Raises:
            SpawnError: It did not start.
        """
        task, stdin = self._launch.task, self._command.stdin or b""
        assert task is not None  # as the sandbox gives only launches of supervisors to a pool
        if self._resident is None:
            self._resident = await self._pool.begin(self._launch)
        resident = self._resident
        nonce, begun = new_nonce(), resident.begun
        told = task_line(self._command.argv, task.env, stdin, task.cwd)
        known = self._known(resident, told)
        line = call_line(told, nonce, known, merge=self._command.merge_stderr)
        talk = Conversation(nonce, begun=begun)
        work = Work(resident.connection, self._command, talk, ending=self)
        if begun:
            resident.connection.tell(b"x\n" + line)
        elif self._pool.once:
            begin = resident_begin(resident.id, alone=True, patience=int(BOUNDS.remote))
            resident.stdin.load(begin + line)
        else:
            resident.stdin.load(resident_begin(resident.id, patience=int(BOUNDS.remote)))
            work.task = line
        work.long_stdin = stdin if len(stdin) > SHORT else b""
        talk.report.wants = bool(work.long_stdin)
        return work

    def _known(self, resident: _Resident, told: bytes) -> str:
        """Return what is known of the program there, as `call_line` takes it."""
        judged = resident.known.get(self._program)
        # setsid heeds LD_..., and takes what begins with a hyphen for an option of its own.
        plain = len(told) <= _MOST_TOLD and not any(n.startswith("LD_") for n in self._command.env)
        if not plain or self._command.argv[0].startswith("-"):
            judged = False
        self._asks = judged is None
        return "ask" if judged is None else "yes" if judged else ""

    # --- what becomes of the resident -------------------------------------------------------------

    async def left_nothing(self, work: Work) -> bool:
        """Return whether the command is gone, with nothing left of it."""
        if not self._in_order(work):
            return await self._alone.left_nothing(work)
        self._kept = (
            self._over(work) and _report(work).left_nothing and await self._place_gone(work)
        )
        return self._kept

    async def end(self, work: Work) -> None:
        """Have the resident end the command; where that cannot be seen, end the resident."""
        if self._in_order(work):
            if not self._over(work):
                await self._end_command(work)
            if self._over(work) and _report(work).left_nothing and await self._place_gone(work):
                self._kept, work.cleanup = True, Cleanup.CONFIRMED
                return
        if self._over(work):
            work.connection.hang_up()
        await self._alone.end(work)

    def release(self, work: Work) -> None:
        """Give the resident back to its pool, or close it."""
        resident, self._resident = self._resident, None
        if resident is None:
            return
        report = _report(work)
        work.connection.doubtful = work.cleanup is Cleanup.UNCONFIRMED
        given_up = work.state.why is not None or work.raised is not None
        self.unbegun = (
            not given_up
            and not work.connection.doubtful
            and resident.begun
            and not report.begun
            and work.connection.child.exited
            # A client that exits with a status from afar has brought all that was said.
            and (
                (work.connection.child.returncode or 0) > _SIGNALLED
                or bool(resident.stdin.unread())
            )
        )
        resident.begun = resident.begun or report.begun
        self._learn(resident, report, work)
        if self._kept and not work.connection.settled:
            self._pool.give(resident)
        else:
            resident.close()

    async def _place_gone(self, work: Work) -> bool:
        """End the place that was for this call alone, where it ends with a process of this host.

        What is in there could have stopped the supervisor, and said in its stead that all is gone.
        """
        connection = work.connection
        if not self._pool.once or connection.launch.leader is None:
            return True
        if connection.leader < 0:
            return False
        with anyio.move_on_after(BOUNDS.cleanup):
            await leader_gone(connection)
            await connection.child.wait()
            connection.settled = True
        return connection.settled

    def _over(self, work: Work) -> bool:
        """Whether the resident has said all that there is to say of the command."""
        report = _report(work)
        return report.whole and report.swept

    def _in_order(self, work: Work) -> bool:
        """Whether the resident can be talked to: it is not in the middle of the command's stdin."""
        report, connection = _report(work), work.connection
        untold = work.task or work.long_stdin
        sent = connection.stdin is not None and connection.stdin.done and not untold
        return sent and report.ready and not report.stdin_lost and not connection.child.exited

    async def _end_command(self, work: Work) -> None:
        """Have the resident end the command, and not itself."""
        resident, report = self._resident, _report(work)
        if resident is None:
            return
        grace = self._command.grace if work.state.why is not None else 0.0

        def over() -> bool:
            return self._over(work)

        with remote.patience(self._launch, grace + BOUNDS.cleanup) as patience:
            await work.until_exit(patience.for_a_step, lambda: report.listens)
            if grace > 0 and not work.ended:
                resident.say(b"t\n")
                await work.until_exit(grace, over)
            with patience.step():
                while not (over() or work.connection.child.exited):
                    resident.say(b"k\n")
                    await work.until_exit(_KILL_AGAIN, over)

    def _learn(self, resident: _Resident, report: Report, work: Work) -> None:
        own, said = (output.capture for output in work.connection.outputs)
        if self._command.merge_stderr:
            own, said = said, own
        if report.gone is not None and not own.total and _SETSID_FAILED.fullmatch(said.value()):
            report.unstarted = report.gone
        if report.unstarted is not None or report.gone is not None:
            resident.known.pop(self._program, None)
        elif self._asks and report.exit_status in range(_OWN_STATUSES):
            if len(resident.known) >= _MOST_KNOWN:
                del resident.known[next(iter(resident.known))]
            resident.known[self._program] = report.fit


def _report(work: Work) -> Report:
    assert work.talk is not None  # as `_Lease.open_work` made it
    return work.talk.report


class Pool:
    """The residents of one place, on one event loop.

    Args:
        most: How many there may be; more calls wait for their turn, on their own timeout.
        idle_timeout: Seconds after which one that serves nobody is closed.
        once: Each serves one command; this is how many are started ahead then, and calls do not
            wait.
    """

    def __init__(self, most: int, idle_timeout: float, *, once: bool) -> None:
        self._most = most
        self.once = once
        self._places = anyio.CapacityLimiter(most)
        self._idle_timeout = idle_timeout
        self._idle: list[_Resident] = []
        self._busy: set[anyio.Event] = set()
        self._closed = False
        self._keeper: anyio.CancelScope | None = None
        self._starter: anyio.CancelScope | None = None
        self._visits = self._granted = 0
        self._last_visit = self._paused_until = -math.inf
        self._serving = 0
        self._changes: Changes | None = None
        self._unseen = False

    @contextmanager
    def visited(self) -> Iterator[bool]:
        """Give whether a call that may do without is to have a resident, which is then free for it:
        another call was here within ``idle_timeout``, or is.
        """
        now = time.monotonic()
        again = self._visits > 0 or now - self._last_visit <= self._idle_timeout
        wanted = again and now >= self._paused_until and self._granted < self._most
        if self._unseen:
            wanted = False
            self._close_idle()
        self._visits += 1
        self._granted += wanted
        try:
            yield wanted
        finally:
            self._visits -= 1
            self._granted -= wanted
            self._last_visit = time.monotonic()

    def pause(self) -> None:
        """Give none to those that may do without, for ``idle_timeout``."""
        self._paused_until = time.monotonic() + self._idle_timeout

    async def run(
        self, launch: Launch, command: Command, *, mode: str, began: float, timeout: float
    ) -> Completed:
        """See ``launch`` through, whose argv begins a resident and whose task is the command's."""
        with watch_spawn(command, mode) as watched:
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self.once:
                completed = await self._serve(launch, command, began, timeout, watched)
                if not isinstance(completed.error, TransportError):
                    self._start_ahead(launch)
                return watched.came_to(completed)
            async with place_within(self._places, began + timeout) as free:
                if free:
                    completed = await self._serve(launch, command, began, timeout, watched)
                else:
                    program = command.argv[0]
                    message = f"{program!r} was not started within {timeout:g} s: no place was free"
                    completed = never_started(command, SpawnTimeoutError(message), began)
                return watched.came_to(completed)

    async def _serve(
        self, launch: Launch, command: Command, began: float, timeout: float, watched: Watched
    ) -> Completed:
        self._serving += 1
        try:
            while True:
                lease = _Lease(self, launch, command, await self.take())
                work = await see_to_its_end(lease.open_work, began + timeout, watched)
                if isinstance(work, SpawnError):
                    return never_started(command, work, began)
                if not lease.unbegun:
                    return outcome(work.connection.launch, command, work.seen(began, timeout))
        finally:
            self._serving -= 1
            self._end_changes()

    async def begin(self, launch: Launch) -> _Resident:
        """Begin a resident.

        Raises:
            SpawnError: It did not start.
        """
        if launch.changes and not self._unseen and not (self._changes and self._changes.alive):
            self._changes = await Changes.open(launch.changes)
            self._unseen = self._changes is None
        return await _Resident.open(launch, self._changes)

    async def _unchanged(self, resident: _Resident) -> bool:
        """Whether a resident is where it would be begun now, as far as that can be seen."""
        if not resident.noted or self._unseen:
            return True
        if self._changes is None:
            return False
        if await self._changes.unchanged(resident.id, BOUNDS.remote):
            return True
        self._unseen = self._changes.blind
        return False

    def _end_changes(self) -> None:
        """Watch for changes no more where there is no resident that they would tell of."""
        if self._changes is not None and not self._idle and not self._serving:
            self._busy = {done for done in self._busy if not done.is_set()} | {self._changes.done}
            self._changes.end()
            self._changes = None

    async def take(self) -> _Resident | None:
        """Return a resident that waits, if there is one that is alive, and in its place.

        The last one of those that stay, so that they end that are not needed; of those that are
        started ahead the first, which is the likeliest to be ready.
        """
        while self._idle:
            resident = self._idle.pop(0 if self.once else -1)
            if not resident.alive:
                self._retire_beside(resident)
                continue
            try:
                unchanged = await self._unchanged(resident)
            except BaseException:
                resident.close()
                raise
            if unchanged:
                return resident
            resident.close()  # what is paused would not end by itself
        return None

    def give(self, resident: _Resident) -> None:
        """Take back a resident whose command is gone."""
        if self.once or self._closed or not resident.alive:
            self._retire_beside(resident)
        else:
            self._keep(resident)

    def _retire_beside(self, resident: _Resident) -> None:
        done = anyio.Event()
        self._busy.add(done)
        start_in_background(
            self._retire, resident, done, name="anyspawn resident", if_cancelled=resident.close
        )

    def _keep(self, resident: _Resident) -> None:
        resident.idle_since = anyio.current_time()
        self._idle.append(resident)
        if self._keeper is None:
            self._keeper = anyio.CancelScope()
            start_in_background(
                self._watch,
                self._keeper,
                name="anyspawn residents",
                if_cancelled=self._close_idle,
            )

    def _start_ahead(self, launch: Launch) -> None:
        if self._starter is None and not self._closed and len(self._idle) < self._most:
            self._starter, done = anyio.CancelScope(), anyio.Event()
            self._busy.add(done)
            start_in_background(self._fill, launch, self._starter, done, name="anyspawn ahead")

    async def _fill(self, launch: Launch, scope: anyio.CancelScope, done: anyio.Event) -> None:
        try:
            with scope, suppress(SpawnError):  # of what stands in the way the next call tells
                while not self._closed and len(self._idle) < self._most:
                    resident = await _Resident.open(launch)
                    try:
                        await resident.connection.until_held()
                    except GeneratorExit:
                        resident.close()
                        raise
                    except BaseException:
                        await see_through(resident.retire, BOUNDS.cleanup)
                        raise
                    if self._closed or resident.connection.cancelled is not None:
                        await see_through(resident.retire, BOUNDS.cleanup)
                        break
                    self._keep(resident)
        finally:
            self._starter = None
            self._busy.discard(done)
            done.set()

    async def _retire(self, resident: _Resident, done: anyio.Event) -> None:
        try:
            await see_through(resident.retire, BOUNDS.cleanup)
        finally:
            resident.close()
            self._busy.discard(done)
            done.set()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Close residents that are idle for too long; all of them when the event loop ends."""
        try:
            with scope:
                while self._idle:
                    longest = self._idle[0]
                    left = longest.idle_since + self._idle_timeout - anyio.current_time()
                    if left > 0:
                        await anyio.sleep(min(left, _LONGEST_SLEEP))
                    else:
                        del self._idle[0]
                        await see_through(longest.retire, BOUNDS.cleanup)
        except GeneratorExit:  # the event loop was closed: nothing can be awaited any more
            self._close_idle()
            raise
        except BaseException:  # it ends
            await see_through(self._retire_idle, BOUNDS.cleanup)
            raise
        finally:
            self._keeper = None
            self._end_changes()

    async def _retire_idle(self) -> None:
        async with anyio.create_task_group() as tasks:
            for resident in self._idle:
                tasks.start_soon(uninterrupted(resident.retire))
        self._close_idle()

    def _close_idle(self) -> None:
        for resident in self._idle:
            resident.close()
        self._idle.clear()

    async def aclose(self) -> None:
        """Close the residents that wait; those that serve a call are closed with it."""
        self._closed = True
        for scope in (self._keeper, self._starter):
            if scope is not None:
                scope.cancel()

        async def close() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(uninterrupted(self._retire_idle))
                for done in self._busy:
                    tasks.start_soon(uninterrupted(done.wait))
            self._end_changes()
            for done in list(self._busy):
                await done.wait()

        try:
            await see_through(close, BOUNDS.cleanup)
        finally:
            self._close_idle()


class Pools:
    """The pools of a sandbox: one for each place and event loop."""

    def __init__(self) -> None:
        self._loops: PerLoop[dict[Hashable, Pool]] = PerLoop(dict)

    def get(self, place: Hashable, most: int, idle_timeout: float, *, once: bool = False) -> Pool:
        """Return the running loop's pool for a place."""
        pools = self._loops.get()
        if place not in pools:
            pools[place] = Pool(most, idle_timeout, once=once)
        return pools[place]

    async def aclose(self) -> None:
        """Close the running loop's residents."""
        pools = self._loops.pop() or {}

        async def close() -> None:
            async with anyio.create_task_group() as tasks:
                for pool in pools.values():
                    tasks.start_soon(uninterrupted(pool.aclose))

        await see_through(close, math.inf)
