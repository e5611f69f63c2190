"""Residents: supervisors that stay, and the calls that they serve one after the other.

The first call that needs a resident opens it. After a call it stays only if nothing is left of the
call's command; otherwise it ends with the call, like a supervisor for one call. So calls never find
processes of other calls.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from weakref import finalize

import anyio

from anyspawn._model import Cleanup, Command, Completed, Launch, Task
from anyspawn._spawn import remote
from anyspawn._spawn.call import EndsWithIt, Work, never_started, no_place, see_to_its_end
from anyspawn._spawn.changes import Changes
from anyspawn._spawn.connection import BOUNDS, Connection, open_connection
from anyspawn._spawn.streams import Feed
from anyspawn._spawn.tasks import (
    PerLoop,
    place_within,
    see_through,
    start_in_background,
    uninterrupted,
)
from anyspawn._telemetry import Watched, watch_spawn
from anyspawn.exceptions import SpawnError, TransportError
from anyspawn.supervisor import Conversation, resident_begin
from anyspawn.supervisor.encode import SHORT, call_line, tag_of, task_line

__all__ = ["Pool", "Pools"]

_KILL_AGAIN = 0.3
_SIGNALLED = 128
_OWN_STATUSES = 125
"""Statuses above this can also mean that the program was never executed."""
_SETSID_FAILED = re.compile(rb"setsid: [^\n]*\n")
_MOST_KNOWN = 100
_MOST_TOLD = 64 * 1024
"""Bytes of arguments and variables that every system accepts."""
_LONGEST_SLEEP = 3600.0  # an event loop may not know how to sleep forever


class _Resident:
    """A supervisor that stays.

    Attributes:
        begun: It has its script, and has started a command.
        known: The programs that it has executed, by name, PATH and directory, and whether any exec
            can execute them.
        noted: Its container is watched for changes.
        close: Releases everything at once.
    """

    def __init__(self, connection: Connection, resident_id: str, changes: Changes | None) -> None:
        self.connection = connection
        self.id = resident_id
        self.begun = False
        self.known: dict[Hashable, bool] = {}
        self.idle_since = 0.0
        self.noted = changes is not None
        for output in connection.outputs:
            output.stays = True
        self.close = finalize(self, _close, connection, os.getpid(), changes, resident_id)
        # The interpreter's exit runs in another thread than the loop, which may still use the
        # connection.
        self.close.atexit = False

    @classmethod
    async def open(cls, launch: Launch, changes: Changes | None = None) -> _Resident:
        """Start one, without a message yet.

        Args:
            launch: How.
            changes: Records its container.

        Raises:
            SpawnError: It did not start.
        """
        resident_id = os.urandom(16).hex()
        filled = launch.filled(id=resident_id, tag=str(tag_of(resident_id)))
        if changes is not None:
            changes.expect(resident_id)
        stdin = partial(Feed, hold=True, later=True, stays=True)
        return cls(await open_connection(filled, resident_id, stdin), resident_id, changes)

    @property
    def alive(self) -> bool:
        return self.connection.stdin.fd >= 0 and not self.connection.child.look()

    def say(self, word: bytes) -> None:
        """Send it a message, unless it cannot accept one."""
        stdin = self.connection.stdin
        if stdin.fd >= 0 and stdin.done:
            with suppress(BlockingIOError):
                os.set_blocking(stdin.fd, False)
                os.write(stdin.fd, word)

    async def retire(self) -> None:
        """Let it exit by itself; kill it if it does not."""
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
    """One call's use of a resident: its work, and what happens to the resident afterwards.

    Args:
        pool: The pool that the resident returns to.
        resident: It.
        task: The message about the command.
        command: The command.
    """

    def __init__(self, pool: Pool, resident: _Resident, task: Task, command: Command) -> None:
        self._pool = pool
        self._resident = resident
        self._command = command
        self._kept = False
        self._alone = EndsWithIt()
        self._program = (command.argv[0], command.env.get("PATH"), command.cwd)
        nonce, stdin = os.urandom(16).hex(), command.stdin or b""
        told = task_line(command.argv, task.env, stdin, task.cwd)
        known = self._known(told)
        self._asks = known == "ask"
        line = call_line(told, nonce, known, merge=command.merge_stderr)
        talk = Conversation(nonce, begun=resident.begun)
        self._report = talk.report
        self.work = work = Work(resident.connection, command, talk, ending=self)
        if resident.begun:
            resident.connection.tell(b"x\n" + line)
        elif pool.once:
            begin = resident_begin(resident.id, alone=True, patience=int(BOUNDS.remote))
            resident.connection.stdin.load(begin + line)
        else:
            begin = resident_begin(resident.id, patience=int(BOUNDS.remote))
            resident.connection.stdin.load(begin)
            work.task = line
        work.long_stdin = stdin if len(stdin) > SHORT else b""
        talk.report.wants = bool(work.long_stdin)

    def _known(self, told: bytes) -> str:
        """Return what the resident knows of the program, in the form of `call_line`."""
        # setsid obeys LD_... variables, and reads a leading hyphen as an option.
        odd = any(name.startswith("LD_") for name in self._command.env)
        if odd or len(told) > _MOST_TOLD or self._command.argv[0].startswith("-"):
            return ""
        return {None: "ask", True: "yes", False: ""}[self._resident.known.get(self._program)]

    async def left_nothing(self, work: Work) -> bool:
        """Return whether the command is gone, with nothing left of it."""
        if not self._in_order(work):
            return await self._alone.left_nothing(work)
        self._kept = await self._is_gone(work)
        return self._kept

    async def end(self, work: Work) -> None:
        """Let the resident end the command; if that cannot be confirmed, end the resident."""
        if self._in_order(work):
            if not self._over():
                await self._end_command(work)
            if await self._is_gone(work):
                self._kept, work.cleanup = True, Cleanup.CONFIRMED
                return
        if self._over():
            work.connection.hang_up()
        await self._alone.end(work)

    def release(self, work: Work) -> None:
        """Return the resident to its pool, or close it."""
        resident, report, connection = self._resident, self._report, work.connection
        connection.doubtful = work.cleanup is Cleanup.UNCONFIRMED
        given_up = work.state.why is not None or work.raised is not None
        unproven = given_up or connection.doubtful or report.begun or not resident.begun
        if not unproven and connection.child.exited:
            # A client that exits with a remote status has delivered all messages.
            from_afar = (connection.child.returncode or 0) > _SIGNALLED
            work.unbegun = from_afar or connection.stdin.unread() > 0
        resident.begun = resident.begun or report.begun
        self._learn(work)
        if self._kept and not connection.settled:
            self._pool.give(resident)
        else:
            resident.close()

    async def _is_gone(self, work: Work) -> bool:
        """Whether nothing is left of the command, nor of a sandbox that was only for it.

        Such a sandbox is ended here, if a process of this host leads it: a program in it could have
        stopped the supervisor, and imitated its report that all is gone.
        """
        if not (self._over() and self._report.left_nothing):
            return False
        connection = work.connection
        if not self._pool.once or connection.launch.leader is None:
            return True
        if connection.leader is None:
            return False
        with anyio.move_on_after(BOUNDS.cleanup):
            await connection.leader_gone()
            await connection.child.wait()
            connection.settled = True
        return connection.settled

    def _over(self) -> bool:
        """Whether the resident has reported everything about the command."""
        return self._report.whole and self._report.swept

    def _in_order(self, work: Work) -> bool:
        """Whether the resident can read a message, as it is not in the middle of a stdin."""
        report, connection = self._report, work.connection
        sent = connection.stdin.done and not (work.task or work.long_stdin)
        return sent and report.ready and not report.stdin_lost and not connection.child.exited

    async def _end_command(self, work: Work) -> None:
        """Let the resident end the command, but not itself."""
        grace = self._command.grace if work.state.why is not None else 0.0
        with remote.patience(work.connection.launch, grace + BOUNDS.cleanup) as patience:
            await work.until_exit(patience.for_a_step, lambda: self._report.listens)
            if grace > 0 and not work.ended:
                self._resident.say(b"t\n")
                await work.until_exit(grace, self._over)
            with patience.step():
                while not (self._over() or work.connection.child.exited):
                    self._resident.say(b"k\n")
                    await work.until_exit(_KILL_AGAIN, self._over)

    def _learn(self, work: Work) -> None:
        report, known = self._report, self._resident.known
        own, said = (output.capture for output in work.connection.outputs)
        if self._command.merge_stderr:
            own, said = said, own
        if report.gone is not None and not own.total and _SETSID_FAILED.fullmatch(said.value()):
            report.unstarted = report.gone
        if report.unstarted is not None or report.gone is not None:
            known.pop(self._program, None)
        elif self._asks and report.exit_status in range(_OWN_STATUSES):
            if len(known) >= _MOST_KNOWN:
                del known[next(iter(known))]
            known[self._program] = report.fit


class Pool:
    """The residents of one target (a container, a pod or a sandbox), on one event loop.

    Args:
        most: How many there may be; further calls wait, within their own timeout.
        idle_timeout: Seconds after which an idle one is closed.
        once: If each serves one command: how many are started in advance; calls do not wait then.
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
        """Decide whether a call with ``resident="auto"`` gets a resident, which is then free for
        it: if another call runs, or ran within ``idle_timeout``.
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
        """Give calls with ``resident="auto"`` none, for ``idle_timeout``."""
        self._paused_until = time.monotonic() + self._idle_timeout

    async def run(
        self,
        launch: Launch,
        task: Task,
        command: Command,
        *,
        mode: str,
        began: float,
        timeout: float,
    ) -> Completed:
        """Run ``task`` in a resident, which the argv of ``launch`` starts."""
        with watch_spawn(command, mode) as watched:
            await anyio.lowlevel.checkpoint_if_cancelled()
            anywhere = nullcontext(enter_result=True)
            async with (
                anywhere if self.once else place_within(self._places, began + timeout) as free
            ):
                if free:
                    completed = await self._serve(launch, task, command, began, timeout, watched)
                else:
                    completed = never_started(command, no_place(command, timeout), began)
            if self.once and not isinstance(completed.error, TransportError):
                self._start_ahead(launch)
            return watched.came_to(completed)

    async def _serve(
        self,
        launch: Launch,
        task: Task,
        command: Command,
        began: float,
        timeout: float,
        watched: Watched,
    ) -> Completed:
        self._serving += 1
        try:
            while True:
                opening = partial(self._lend, await self._take(), launch, task, command)
                work = await see_to_its_end(opening, began + timeout, watched)
                if isinstance(work, SpawnError):
                    return never_started(command, work, began)
                if not work.unbegun:
                    return work.outcome(began, timeout)
        finally:
            self._serving -= 1
            self._end_changes()

    async def _lend(
        self, resident: _Resident | None, launch: Launch, task: Task, command: Command
    ) -> Work:
        """Start a command in a resident, if necessary a new one.

        Raises:
            SpawnError: It did not start.
        """
        if resident is None:
            if launch.changes and not self._unseen and not (self._changes and self._changes.alive):
                self._changes = await Changes.open(launch.changes)
                self._unseen = self._changes is None
                if self._changes is not None and self._changes.cancelled is not None:
                    raise self._changes.cancelled
            resident = await _Resident.open(launch, self._changes)
        return _Lease(self, resident, task, command).work

    async def _take(self) -> _Resident | None:
        """Return a waiting resident that is alive and still in its container, if there is one.

        Of residents that stay, take the last one, so that superfluous ones become idle; of those
        that are started in advance, take the first, which is most likely ready.
        """
        while self._idle:
            resident = self._idle.pop(0 if self.once else -1)
            if not resident.alive:
                self._retire(resident)
                continue
            try:
                unchanged = await self._unchanged(resident)
            except BaseException:
                resident.close()
                raise
            if unchanged:
                return resident
            resident.close()  # a paused one would not exit by itself
        return None

    async def _unchanged(self, resident: _Resident) -> bool:
        """Whether a resident is where a new one would start now, as far as that can be known."""
        if not resident.noted or self._unseen:
            return True
        if self._changes is None:
            return False
        if await self._changes.unchanged(resident.id, BOUNDS.remote):
            return True
        self._unseen = self._changes.blind
        return False

    def _end_changes(self) -> None:
        """Stop watching for changes if there is no resident left."""
        if self._changes is not None and not self._idle and not self._serving:
            self._busy = {done for done in self._busy if not done.is_set()} | {self._changes.done}
            self._changes.end()
            self._changes = None

    def give(self, resident: _Resident) -> None:
        """Take a resident back, whose command is gone."""
        if self.once or self._closed or not resident.alive:
            self._retire(resident)
        else:
            self._keep(resident)

    def _retire(self, resident: _Resident) -> None:
        retire = partial(see_through, resident.retire, BOUNDS.cleanup)
        self._beside("anyspawn resident", retire, resident.close)

    def _start_ahead(self, launch: Launch) -> None:
        if self._starter is None and not self._closed and len(self._idle) < self._most:
            self._starter = anyio.CancelScope()
            self._beside("anyspawn ahead", partial(self._fill, launch, self._starter))

    async def _fill(self, launch: Launch, scope: anyio.CancelScope) -> None:
        try:
            with scope, suppress(SpawnError):  # the next call reports why it fails
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

    def _beside(
        self,
        name: str,
        step: Callable[[], Awaitable[None]],
        at_last: Callable[[], object] = lambda: None,
    ) -> None:
        """Run a step in a separate task, for which `aclose` waits."""
        done = anyio.Event()
        self._busy.add(done)

        def finish() -> None:
            at_last()
            self._busy.discard(done)
            done.set()

        async def take() -> None:
            try:
                await step()
            finally:
                finish()

        start_in_background(take, name=name, if_cancelled=finish)

    def _keep(self, resident: _Resident) -> None:
        resident.idle_since = anyio.current_time()
        self._idle.append(resident)
        if self._keeper is None:
            self._keeper = anyio.CancelScope()
            start_in_background(
                self._watch, self._keeper, name="anyspawn residents", if_cancelled=self._close_idle
            )

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
        """Close the waiting residents; those that serve a call are closed with it."""
        self._closed = True
        for scope in (self._keeper, self._starter):
            if scope is not None:
                scope.cancel()

        async def close() -> None:
            await self._retire_idle()
            self._end_changes()
            for done in tuple(self._busy):
                await done.wait()

        try:
            await see_through(close, BOUNDS.cleanup)
        finally:
            self._close_idle()


class Pools:
    """The pools of a sandbox: one for each target and event loop."""

    def __init__(self) -> None:
        self._loops: PerLoop[dict[Hashable, Pool]] = PerLoop(dict)

    def get(self, place: Hashable, most: int, idle_timeout: float, *, once: bool = False) -> Pool:
        """Return the running loop's pool for a target."""
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
