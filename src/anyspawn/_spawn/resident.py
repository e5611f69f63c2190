"""Residents: supervisors that stay, and the calls that they serve one after the other.

A resident is opened by the first call that needs one, and kept by each call whose command was seen
to be gone, with nothing left of it; where that cannot be seen it is closed with the call, as if it
had been the call's own. So no call meets what another one left behind, unless that hides. Where the
place is ours it serves one call, so that nothing of it is there for the next.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, finalize

import anyio
import attrs

from anyspawn._model import Cleanup, Command, Completed, Launch
from anyspawn._spawn.background import start_in_background
from anyspawn._spawn.core import (
    CLEANUP_TIMEOUT,
    REMOTE_TIMEOUT,
    Call,
    conduct,
    see_through,
    timed_out_waiting,
)
from anyspawn._spawn.group import ProcessGroup, ended
from anyspawn._spawn.pipes import Feed, Output, unread
from anyspawn._spawn.process import Process
from anyspawn.exceptions import TransportError
from anyspawn.supervisor import SHORT, Frames, call_line, resident_begin, tag_of

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


@attrs.define(eq=False)
class _Holdings:
    """What a resident holds: its client, and the pipes to that.

    Args:
        process: The client.
        group: Its process group.
        stdin: Both ends of its stdin; as we hold the read end too, writing never fails.
        outputs: The read ends of its stdout and its stderr.
        status: What the client reports, where it does.
        guard: What ends remote work when this process vanishes, and the pipe that it waits on.
        leader: A pidfd of the process that leads the place where the resident is, where that is not
            the client.
        doubtful: The client may have ended without that place.
    """

    process: Process
    group: ProcessGroup
    stdin: tuple[int, ...]
    outputs: tuple[int, int]
    status: Output | None
    guard: tuple[Process, Feed] | None
    leader: int = -1
    doubtful: bool = False

    def close_stdin(self) -> None:
        for fd in self.stdin:
            os.close(fd)
        self.stdin = ()

    def close(self, host: int) -> None:
        self.close_stdin()
        for fd in self.outputs:
            os.close(fd)
        if os.getpid() == host:
            gone = self.process.ended_by_itself and not self.doubtful
            with suppress(OSError):
                self.group.send(signal.SIGKILL)
            self.process.kill()
            if self.guard is not None and gone:
                self.guard[0].kill()
            elif self.guard is not None:
                self.guard[0].reap_later()
        if self.guard is not None:
            self.guard[1].close()
        if self.status is not None:
            self.status.close()
        if self.leader >= 0:
            os.close(self.leader)
        self.group.close()


class _Resident:
    """A supervisor that stays.

    Args:
        holdings: What it holds.
        resident_id: What its commands carry, and what names its container, if it has one of its
            own.
        launch: How it was begun.

    Attributes:
        begun: It was given its script, and has begun a command.
        known: The programs that it has executed, each with what it was found by, and whether any
            exec executes them.
    """

    def __init__(self, holdings: _Holdings, resident_id: str, launch: Launch) -> None:
        self.holds = holdings
        self.id = resident_id
        self.launch = attrs.evolve(launch, stdin=b"", explain=None)
        self.begun = False
        self.known: dict[Hashable, bool] = {}
        self.idle_since = 0.0
        os.set_blocking(holdings.stdin[1], False)
        self.close = finalize(self, holdings.close, os.getpid())

    @property
    def alive(self) -> bool:
        return bool(self.holds.stdin) and not ended(self.holds.process.pid)

    def say(self, word: bytes) -> None:
        """Write a word to it, unless it cannot take it."""
        if self.holds.stdin:
            with suppress(BlockingIOError):
                os.write(self.holds.stdin[1], word)

    def has_read_all(self) -> bool:
        """Return whether its client has taken all that was written to it."""
        return not (self.holds.stdin and unread(self.holds.stdin[0]))

    def hang_up(self) -> None:
        """End its stdin, which ends its command's whole tree, and then itself."""
        self.holds.close_stdin()


def _named(launch: Launch, words: int, resident_id: str) -> Launch:
    """Return how to begin the resident that ``launch`` is for, less its command's so many words,
    where its id is known.
    """
    names = {
        "?id": resident_id,
        "?tag": str(tag_of(resident_id)),
        "anyspawn-?": f"anyspawn-{resident_id}",
        "io.anyspawn.id=?": f"io.anyspawn.id={resident_id}",
        "name=^anyspawn-?$": f"name=^anyspawn-{resident_id}$",
    }

    def named(argv: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(arg, arg) for arg in argv)

    return attrs.evolve(
        launch,
        argv=named(launch.argv[:-words]),
        guard=named(launch.guard),
        stop=named(launch.stop),
        end=named(launch.end),
        gone=named(launch.gone),
    )


class _ResidentCall(Call):
    """A call that is served by a resident of a pool, or opens one and leaves it there."""

    def __init__(
        self,
        launch: Launch,
        command: Command,
        began: float,
        timeout: float,
        pool: Pool,
        resident: _Resident | None,
    ) -> None:
        assert launch.stdin is not None
        self._pool = pool
        self._resident = resident
        self._kept = False
        self._unbegun = False

        def again() -> Call:
            return _ResidentCall(launch, command, began, timeout, pool, pool.take())

        self._again = again
        self._id = os.urandom(16).hex() if resident is None else resident.id
        self._long = memoryview(b"")
        if len(command.stdin or b"") > SHORT:
            self._long = memoryview(launch.stdin)[-len(command.stdin or b"") :]
        nonce = os.urandom(16).hex()
        told = launch.stdin[: len(launch.stdin) - len(self._long)]
        self._program = (command.argv[0], command.env.get("PATH"), command.cwd)
        judged = None if resident is None else resident.known.get(self._program)
        # setsid heeds LD_..., and takes what begins with a hyphen for an option of its own
        plain = len(told) <= _MOST_TOLD and not any(name.startswith("LD_") for name in command.env)
        if not plain or command.argv[0].startswith("-"):
            judged = False
        self._asks = judged is None
        line = call_line(told, nonce, "ask" if judged is None else "yes" if judged else "")
        begin = (
            b"x\n"
            if resident is not None and resident.begun
            else resident_begin(self._id, alone=pool.fresh)
        )
        named = _named(launch, len(command.argv), self._id) if resident is None else resident.launch
        changed = attrs.evolve(named, stdin=begin + line, nonce=nonce, explain=launch.explain)
        super().__init__(changed, command, began, timeout)

    def successor(self) -> Call | None:
        return self._again() if self._unbegun else None

    # --- the course -------------------------------------------------------------------------------

    def _start(self) -> bool:
        if self._resident is not None:
            self._adopt(self._resident)
            return True
        if not super()._start():
            return False
        assert self._process is not None
        self._group = self._process.group = ProcessGroup(self._process.pid)
        feed, (stdout, stderr) = self._feeds[0], self._outputs
        guard = (
            None if self._guard is None or self._lifeline is None else (self._guard, self._lifeline)
        )
        self._guard = self._lifeline = None
        self._resident = _Resident(
            _Holdings(
                process=self._process,
                group=self._group,
                stdin=(feed.read_end, feed.fd),
                outputs=(stdout.fd, stderr.fd),
                status=self._status,
                guard=guard,
            ),
            self._id,
            self._launch,
        )
        feed.stays = stdout.stays = stderr.stays = True
        return True

    def open(self) -> _Resident | None:
        """Start a resident for a later call; ``None`` where that fails, of which that call will
        tell.
        """
        resident = None
        if self._start():
            resident, self._resident = self._resident, None
            self._group = self._status = None
        self._release()
        return resident

    def _adopt(self, resident: _Resident) -> None:
        assert self._frames is not None
        assert self._launch.stdin is not None
        held, begun = resident.holds, resident.begun
        self._process, self._group, self._status, self._leader = (
            held.process,
            held.group,
            held.status,
            held.leader,
        )
        if begun:
            self._frames.words.append("ready")
        limit, keep_tail = self._command.output_limit, self._command.overflow == "truncate"
        frames = Frames(self._launch.nonce, begun=begun)
        stdout = Output("stdout", held.outputs[0], limit, keep_tail=keep_tail, frames=frames)
        stderr = Output("stderr", held.outputs[1], limit, keep_tail=keep_tail, frames=self._frames)
        stdout.stays = stderr.stays = True
        self._outputs += [stdout, stderr]
        self._feeds.append(
            Feed(
                self._launch.stdin, hold=True, later=not begun, pipe=(held.stdin[0], held.stdin[1])
            )
        )

    async def _read(self, output: Output) -> None:
        await super()._read(output)
        if self._long and self._frames is not None and self._frames.send:
            assert self._selector is not None
            data, self._long = self._long, memoryview(b"")
            feed = self._feeds[0]
            feed.add(data)
            if not feed.done:
                self._selector.register(feed.fd, selectors.EVENT_WRITE, feed)

    @property
    def _over(self) -> bool:
        """Whether the resident has said all that there is to say of the command."""
        return all(output.frames is not None and output.frames.over for output in self._outputs)

    async def _finish(self) -> None:
        if self._in_order:
            if not self._over:
                await self._end_command()
            elif self._reason is None and self._clean and await self._place_gone():
                self._kept = True
                return
            if self._over and self._clean and await self._place_gone():
                self._kept, self._cleanup = True, Cleanup.CONFIRMED
                return
        if self._over:
            self._close_stdin()
        await super()._finish()

    async def _place_gone(self) -> bool:
        """End the place that was for this call alone, where it ends with a process of this host.

        What is in there could have stopped the supervisor, and said in its stead that all is gone.
        """
        if not self._pool.fresh or self._launch.leader is None:
            return True
        if self._leader < 0:
            return False
        with anyio.CancelScope(deadline=anyio.current_time() + CLEANUP_TIMEOUT, shield=True):
            await self._leader_gone()
            return True
        return False

    @property
    def _in_order(self) -> bool:
        """Whether the resident can be talked to: it lives, and is not in the middle of the
        command's stdin.
        """
        sent = bool(self._feeds) and self._feeds[0].done and not self._long
        frames = self._frames
        whole = frames is not None and frames.ready and not frames.lost
        return sent and whole and not self._exited and self._error is None

    @property
    def _clean(self) -> bool:
        return self._frames is not None and self._frames.clean and not self._frames.lost

    async def _end_command(self) -> None:
        """Have the resident end the command, and not itself."""
        assert self._resident is not None
        frames = self._frames
        assert frames is not None
        grace = self._command.grace if self._reason is not None else 0.0
        limit = anyio.current_time() + grace + CLEANUP_TIMEOUT
        with anyio.CancelScope(deadline=limit, shield=True):
            await self._until_exit(REMOTE_TIMEOUT, lambda: frames.listens)
            if grace > 0 and not self._work_ended:
                self._resident.say(b"t\n")
                await self._until_exit(grace, lambda: self._over)
            for _ in range(int(REMOTE_TIMEOUT / _KILL_AGAIN)):
                if self._over or self._exited:
                    break
                self._resident.say(b"k\n")
                await self._until_exit(_KILL_AGAIN, lambda: self._over)

    def _close_stdin(self) -> None:
        super()._close_stdin()
        if self._resident is not None:
            self._resident.hang_up()

    def _outcome(self) -> Completed:
        self._argv += self._command.argv
        if self._frames is not None and self._frames.gone is not None:
            stdout, stderr = (output.so_far() for output in self._outputs)
            if not stdout and _SETSID_FAILED.fullmatch(stderr):
                self._frames.words.append(f"unstarted {self._frames.gone}")
        return super()._outcome()

    def _release(self) -> None:
        resident, self._resident = self._resident, None
        told = self._process is not None
        if resident is not None and told:
            self._unbegun = self._not_begun(resident)
            if self._frames is not None:
                resident.begun = resident.begun or self._frames.begun
                self._learn(resident, self._frames)
            if self._last_resort is not None:
                self._last_resort.detach()
            resident.holds.leader = self._leader
            resident.holds.doubtful = self.cleanup_failed
            self._group, self._status, self._leader = None, None, -1
        super()._release()
        if resident is None:
            return
        if self._kept or not told:
            self._pool.give(resident)
        else:
            resident.close()

    def _learn(self, resident: _Resident, frames: Frames) -> None:
        if frames.unstarted is not None or frames.gone is not None:
            resident.known.pop(self._program, None)
        elif self._asks and frames.exit_status in range(_OWN_STATUSES):
            if len(resident.known) >= _MOST_KNOWN:
                del resident.known[next(iter(resident.known))]
            resident.known[self._program] = frames.fit

    def _not_begun(self, resident: _Resident) -> bool:
        """Return whether a resident that served before ended before it began this command, as far
        as one can prove that.

        It says so before it does, and a client that ends with a status from afar has brought all
        that was said.
        """
        assert self._process is not None
        if self._frames is None:
            return False
        given_up = self._reason is not None or self.raised is not None or self.cleanup_failed
        if given_up or not self._exited or not resident.begun or self._frames.begun:
            return False
        return (self._process.returncode or 0) > _SIGNALLED or not resident.has_read_all()


class Pool:
    """The residents of one place, on one event loop.

    Args:
        most: How many there may be; more calls wait for their turn, on their own timeout.
        idle_timeout: Seconds after which one that serves nobody is closed.
        fresh: Each serves one command; this is how many are started ahead then, and calls do not
            wait.
    """

    def __init__(self, most: int, idle_timeout: float, *, fresh: bool) -> None:
        self._most = most
        self.fresh = fresh
        self._places = None if fresh else anyio.CapacityLimiter(most)
        self._idle_timeout = idle_timeout
        self._idle: list[_Resident] = []
        self._closing: set[anyio.Event] = set()
        self._closed = False
        self._keeper: anyio.CancelScope | None = None

    async def run(
        self, launch: Launch, command: Command, *, mode: str, began: float, timeout: float
    ) -> Completed:
        """See ``launch`` through, whose argv begins a resident and whose stdin is its task."""
        if self._places is None:
            completed = await conduct(
                _ResidentCall(launch, command, began, timeout, self, self.take()), command, mode
            )
            if not isinstance(completed.error, TransportError):
                self._start_ahead(launch, command)
            return completed
        place = object()
        with anyio.CancelScope(deadline=began + timeout) as scope:
            await self._places.acquire_on_behalf_of(place)
        if scope.cancelled_caught:
            return timed_out_waiting(launch, command, began=began, timeout=timeout)
        try:
            return await conduct(
                _ResidentCall(launch, command, began, timeout, self, self.take()), command, mode
            )
        finally:
            self._places.release_on_behalf_of(place)

    def _start_ahead(self, launch: Launch, command: Command) -> None:
        while not self._closed and len(self._idle) < self._most:
            resident = _ResidentCall(launch, command, 0.0, 0.0, self, None).open()
            if resident is None:
                return
            self._keep(resident)

    def take(self) -> _Resident | None:
        """Return a resident that waits, if there is one that is alive.

        The last one of those that stay, so that they end that are not needed; of those that are
        started ahead the first, which is the likeliest to be ready.
        """
        while self._idle:
            resident = self._idle.pop(0 if self._places is None else -1)
            if resident.alive:
                return resident
            resident.close()
        return None

    def give(self, resident: _Resident) -> None:
        """Take back a resident whose command is gone."""
        if self._closed or not resident.alive:
            resident.close()
        elif self._places is None:
            done = anyio.Event()
            self._closing.add(done)
            start_in_background(self._end, resident, done, name="anyspawn resident")
        else:
            self._keep(resident)

    def _keep(self, resident: _Resident) -> None:
        resident.idle_since = anyio.current_time()
        self._idle.append(resident)
        if self._keeper is None:
            self._keeper = anyio.CancelScope()
            start_in_background(self._watch, self._keeper, name="anyspawn residents")

    async def _end(self, resident: _Resident, done: anyio.Event) -> None:
        try:
            await see_through(partial(_retire, resident), CLEANUP_TIMEOUT)
        finally:
            resident.close()
            self._closing.discard(done)
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
                        await see_through(partial(_retire, longest), CLEANUP_TIMEOUT)
        finally:
            self._keeper = None
            if not scope.cancel_called:
                for resident in self._idle:
                    resident.close()
                self._idle.clear()

    async def aclose(self) -> None:
        """Close the residents that wait; those that serve a call are closed with it."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        idle, self._idle = self._idle, []

        async def close() -> None:
            async with anyio.create_task_group() as tasks:
                for resident in idle:
                    tasks.start_soon(_retire, resident)
                for done in self._closing:
                    tasks.start_soon(done.wait)

        try:
            await see_through(close, CLEANUP_TIMEOUT)
        finally:
            for resident in idle:
                resident.close()


async def _retire(resident: _Resident) -> None:
    """Have a resident end by itself; end it where it does not."""
    try:
        resident.hang_up()
        with anyio.move_on_after(CLEANUP_TIMEOUT - 1):
            await resident.holds.process.wait()
    finally:
        resident.close()


class Pools:
    """The pools of a sandbox: one for each place and event loop."""

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[Any, dict[Hashable, Pool]] = WeakKeyDictionary()

    def get(self, place: Hashable, most: int, idle_timeout: float, *, fresh: bool = False) -> Pool:
        """Return the running loop's pool for a place."""
        pools = self._loops.setdefault(anyio.lowlevel.current_token().native_token, {})
        if place not in pools:
            pools[place] = Pool(most, idle_timeout, fresh=fresh)
        return pools[place]

    async def aclose(self) -> None:
        """Close the running loop's residents."""
        pools = self._loops.pop(anyio.lowlevel.current_token().native_token, {})
        async with anyio.create_task_group() as tasks:
            for pool in pools.values():
                tasks.start_soon(pool.aclose)
