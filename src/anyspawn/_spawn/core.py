"""The course of one call, from pipes to clean-up.

A call is looked after by a task of its own (`Call.supervise`). It takes the caller's cancellation
where it waits for the
program, and is shielded from it where it ends the program and collects what is left: so neither an
anyio cancel scope nor a native ``asyncio.Task.cancel()`` of the caller, however often, can leave
work behind. One selector holds both output streams, stdin and the program's end, so that a single
task does all of it, in order.
"""

from __future__ import annotations

import inspect
import math
import os
import selectors
import signal
import sys
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

# its names are taken where they are used: anyio loads their modules, ssl among them, only then
import anyio
import attrs

from anyspawn._model import Cleanup, Command, Completed, Launch
from anyspawn._spawn.diagnose import HOST_ERRORS, cwd_problem, describe
from anyspawn._spawn.group import MARK, WHOLE_GROUP, ProcessGroup, ended, marked, pin
from anyspawn._spawn.pipes import Feed, Output, make_pipe
from anyspawn._spawn.process import Process
from anyspawn._telemetry import warn, watch_spawn
from anyspawn.exceptions import (
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.supervisor import Frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "CLEANUP_TIMEOUT",
    "REMOTE_TIMEOUT",
    "Call",
    "conduct",
    "on_asyncio",
    "run",
    "see_through",
    "timed_out_waiting",
]

CLEANUP_TIMEOUT = 5.0
_SETTLE = 0.1
REMOTE_TIMEOUT = 2.0
_RUNNER_FAILED = 125
_EXIT_POLL = 0.05
_DOUBT = 1.0
"""Seconds for which what is just becoming another program may turn out to be the call's."""
_LAST_LOOKS = 64
_STATUS_LIMIT = 64 * 1024
_PIDS_PER_TURN = 128

_SIGCHLD_IGNORED = (
    "{!r} was not started: this process ignores SIGCHLD, so that no program's exit status can be known; "
    "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
)


async def run(
    launch: Launch, command: Command, *, mode: str, began: float, timeout: float
) -> Completed:
    """Start ``launch`` and see it through.

    Args:
        launch: The local process.
        command: The command that it stands for; its limits and callback apply.
        mode: What the sandbox is called in logs and spans.
        began: When the call began, on the event loop's clock.
        timeout: Seconds from then on that the program has.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    return await conduct(Call(launch, command, began, timeout), command, mode)


async def conduct(call: Call, command: Command, mode: str) -> Completed:
    """See ``call`` through, in a task of its own, and tell those who watch."""
    watch = watch_spawn(command, mode)
    try:
        successor: Call | None = call
        while successor is not None:
            call = successor
            if on_asyncio():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call.supervise)
            else:  # trio knows no cancellation but that of scopes, from which a shield protects
                await call.supervise()
            successor = call.successor()
    finally:
        if call.cleanup_failed:
            warn(
                "anyspawn.spawn",
                "id=%s mode=%s: something of %r may still run",
                command.id,
                mode,
                command.argv[0],
            )
        if watch is not None:
            watch.end(call.completed, call.raised, call.pid)
    if call.raised is not None:
        try:
            raise call.raised
        finally:
            call.raised = None
    assert call.completed is not None
    return call.completed


def timed_out_waiting(
    launch: Launch, command: Command, *, began: float, timeout: float
) -> Completed:
    """Return the outcome of a call whose timeout ran out before there was a place for it."""
    error = SpawnTimeoutError(
        f"{command.argv[0]!r} was not started within {timeout:g} s: no place was free"
    )
    return Completed(argv=launch.argv, duration=anyio.current_time() - began, error=error)


async def see_through(step: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Take a step of a clean-up, in bounded time, whatever cancels the caller meanwhile; it must
    not raise.
    """

    async def shielded() -> None:
        with anyio.move_on_after(seconds, shield=True):
            await step()

    if on_asyncio():  # a child task is out of reach of `asyncio.Task.cancel()`
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shielded)
    else:
        await shielded()


def on_asyncio() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and anyio.get_cancelled_exc_class() is asyncio.CancelledError


class Call:
    """One call: what is to be started, what came of it, and all that has to be given back."""

    _stdin_type = Feed
    _output_type = Output

    def __init__(self, launch: Launch, command: Command, began: float, timeout: float) -> None:
        self.raised: BaseException | None = None
        self.completed: Completed | None = None
        self._launch = launch
        self._command = command
        self._began = began
        self._timeout = timeout
        self._deadline = began + timeout
        self._argv = list(launch.argv)
        # A client's mark is not the id that its supervisor looks for, which may share our pid
        # namespace.
        kind = "client." if launch.nonce else ""
        self._mark = f"{kind}{command.id}.{time.monotonic_ns():x}" if launch.mark else ""
        self._selector: selectors.DefaultSelector | None = None
        self._child_fds: list[int] = []
        self._pass_fds: list[int] = []
        self._feeds: list[Feed] = []
        self._outputs: list[Output] = []
        self._status: Output | None = None
        self._frames = Frames(launch.nonce) if launch.nonce else None  # of stderr
        self._guard: Process | None = None
        self._lifeline: Feed | None = None
        self._callback = command.on_output
        self._last_wait: anyio.CancelScope | None = None
        self._exit_seen = True  # by the selector; elsewhere it is asked for
        self._process: Process | None = None
        self._group: ProcessGroup | None = None
        self._last_resort: weakref.finalize[..., Any] | None = None
        self._leader = (
            -1
        )  # a pidfd of the process that leads the work, where that is not the runner itself
        self._exited = False
        self._removed = False  # what a client had asked for
        self._seen_through = False
        self._reason: Literal["timeout", "overflow", "raised", "cancelled", "closed"] | None = None
        self._error: SpawnError | None = None
        self._incomplete = False
        self._cleanup = Cleanup.NOT_NEEDED

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def cleanup_failed(self) -> bool:
        return self._cleanup is Cleanup.UNCONFIRMED

    # --- the course -------------------------------------------------------------------------------

    def successor(self) -> Call | None:
        """Return the call to make instead of this one, where its command was not begun for a reason
        that is not its own.
        """
        return None

    async def supervise(self) -> None:
        cancelled = anyio.get_cancelled_exc_class()
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._start():
                try:
                    if self._watch():
                        await self._attend()
                except cancelled as exc:
                    self._reason, self.raised = "cancelled", exc
                except (
                    GeneratorExit
                ):  # the loop was closed under us: `_release` kills, nothing can be awaited
                    raise
                except BaseException as exc:
                    self._reason, self.raised = "raised", exc
                await self._finish()
        except BaseException as exc:
            self.raised = exc
        finally:
            self._release()
        if isinstance(self.raised, cancelled):
            raise self.raised
        if self.raised is None:
            self.completed = self._outcome()

    def _start(self) -> bool:
        """Start the process; return whether there is one to look after."""
        launch = self._launch
        if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            self._error = NotStartedError(_SIGCHLD_IGNORED.format(launch.argv[0]))
            return False
        env = self._environment()
        try:
            stdin, stdout, stderr = self._open_pipes()
            if launch.guard:
                self._guard = self._start_guard()
            self._process = Process(
                self._argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=launch.cwd,
                env=env,
                pass_fds=self._pass_fds,
            )
        except OSError as exc:
            self._error = self._not_started(exc, env)
            return False
        finally:
            self._close_child_ends()
        return True

    def _start_guard(self) -> Process:
        self._lifeline = lifeline = Feed(b"", hold=True)
        null = -1
        try:
            null = os.open(os.devnull, os.O_RDWR)
            guard, cwd = self._launch.guard, self._launch.cwd
            env = self._environment(mark=False)
            return Process(
                guard,
                stdin=lifeline.read_end,
                stdout=null,
                stderr=null,
                cwd=cwd,
                env=env,
                pass_fds=(),
            )
        finally:
            if null >= 0:
                os.close(null)
            lifeline.close_read_end()

    def _not_started(self, exc: OSError, env: dict[bytes, bytes]) -> SpawnError:
        launch, program = self._launch, self._launch.argv[0]
        if launch.guard and self._guard is None:
            program = launch.guard[0]
        if (problem := cwd_problem(launch.cwd)) and exc.errno not in HOST_ERRORS:
            return NotStartedError(f"{program!r} was not started: {problem}")
        reason = describe(
            program, launch.cwd, os.fsdecode(env.get(b"PATH", b"")) or os.defpath, exc
        )
        if launch.runner is None or exc.errno in HOST_ERRORS:
            return NotStartedError(reason)
        return TransportError(
            f"{reason}; {launch.install}" if launch.install else reason, started=False
        )

    async def _attend(self) -> None:
        """Move data until the program has ended and its streams are closed, or something says to
        end it.
        """
        assert self._process is not None
        with anyio.CancelScope(deadline=self._deadline) as scope:
            while not self._work_ended and self._reason is None:
                await self._turn()
        if scope.cancelled_caught and not self._work_ended:
            if ended(self._process.pid):
                self._exited = True
            else:
                self._reason = "timeout"
        if self._work_ended and self._streams_open and self._reason is None:
            await self._until_looked()
            await self._read_until_closed(self._command.wait_delay, stop_early=True)
            self._incomplete = self._streams_open

    @property
    def _work_ended(self) -> bool:
        """Whether the program has ended: the local process has, or the supervisor says so."""
        return self._exited or (self._frames is not None and self._frames.exit_status is not None)

    async def _until_looked(self) -> None:
        """Give the supervisor the time to look whether a stream is held: only then ``wait_delay``
        begins.
        """
        if self._frames is None:
            return
        with anyio.CancelScope(deadline=anyio.current_time() + REMOTE_TIMEOUT) as self._last_wait:
            while (
                self._streams_open
                and self._reason is None
                and not (self._exited or self._frames.held)
            ):
                await self._turn()

    async def _read_until_closed(self, seconds: float, *, stop_early: bool) -> None:
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as self._last_wait:
            await self._serve_all()  # what is there already counts, however short the delay
            while self._streams_open and not (stop_early and self._reason):
                await self._turn()

    async def _finish(self) -> None:
        """End what is left, and see that it is gone. Runs shielded, in bounded time."""
        assert self._process is not None
        if not self._exited and not self._streams_open and self._reason is None:
            self._exited = await self._ends_within(
                REMOTE_TIMEOUT
            )  # a supervisor's client closed its streams first
        forced, seen_clean = not self._exited, False
        grace = self._command.grace if forced and self._reason is not None else 0.0
        with anyio.CancelScope(
            deadline=anyio.current_time() + grace + CLEANUP_TIMEOUT, shield=True
        ) as scope:
            if forced:
                await self._end(grace)
            await self._process.wait()
            await self._leader_gone()
            left = self._signal_group(signal.SIGKILL)
            if not (forced or left or self._incomplete or self._reason or self._remote_in_doubt()):
                self._seen_through = True
                return
            seen_clean = await self._sweep()
            await self._group_gone()
            seen_clean = await self._remote_gone() and seen_clean
        with anyio.CancelScope(shield=True):
            if self._selector is not None:
                await self._keep_raised(
                    self._collect_rest, _SETTLE if self._incomplete else self._command.wait_delay
                )
        self._incomplete = self._incomplete or self._streams_open
        seen_clean = seen_clean and not self._may_come
        sure = self._exited and not scope.cancelled_caught and seen_clean and not self._streams_open
        self._cleanup = Cleanup.CONFIRMED if sure else Cleanup.UNCONFIRMED
        self._seen_through = True

    @property
    def _may_come(self) -> bool:
        """Whether something may come yet that a client had asked for, which was killed and could
        not say.
        """
        assert self._process is not None
        killed = (self._process.returncode or 0) < 0
        return killed and self._frames is None and bool(self._launch.end) and not self._removed

    async def _ends_within(self, seconds: float) -> bool:
        assert self._process is not None
        with anyio.CancelScope(deadline=anyio.current_time() + seconds, shield=True):
            await self._process.wait()
            return True
        return False

    async def _collect_rest(self, seconds: float) -> None:
        await self._read_until_closed(seconds, stop_early=False)
        if self._streams_open:  # a callback that took all the time hides the end of a stream
            self._callback = None
            await self._serve_all()

    async def _end(self, grace: float) -> None:
        assert self._process is not None
        if self._frames is not None and not self._frames.ready and self._selector is not None:
            self._close_stdin()  # nothing has been started, and nothing will be
            grace = 0.0
        if grace > 0 and self._selector is not None:
            await self._ask_to_end(grace)
        if self._selector is not None and not self._exited:
            if self._frames is not None:
                self._close_stdin()
                if self._frames.ready:
                    await self._until_exit(REMOTE_TIMEOUT)
            elif self._launch.end:
                await self._until_removed()
        if not self._exited:
            self._signal_group(signal.SIGKILL)
            await self._process.wait()
            self._exited = True

    def _close_stdin(self) -> None:
        assert self._selector is not None
        for feed in self._feeds:
            if not feed.done and not feed.waiting:
                self._selector.unregister(feed.fd)
            feed.close()
        self._feeds.clear()

    async def _until_removed(self) -> None:
        """End remote work before its client: one that is killed may leave a request behind that is
        still to come.
        """

        async def remove() -> None:
            while not self._exited:
                await self._keep_raised(self._end_remote)
                if not self._exited:
                    await anyio.sleep(0.05)

        with anyio.CancelScope(deadline=anyio.current_time() + REMOTE_TIMEOUT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    remove
                )  # beside, as docker waits until the client has taken all output
                await self._until_exit(math.inf)

    async def _end_remote(self) -> None:
        done = await self._beside(self._launch.end)
        if done.error is None and done.stdout.strip():  # it was there
            self._removed = True

    def _remote_in_doubt(self) -> bool:
        """Whether remote work may be left although the local process ended by itself."""
        if not self._launch.remote:
            return False
        if self._frames is not None:
            return self._frames.ready and not self._frames.clean
        assert self._process is not None
        code = self._process.returncode
        if self._launch.explain is None or code is None or code < 0:
            return code != 0
        out, err = (output.so_far() for output in self._outputs[:2])
        said = Completed(argv=tuple(self._argv), returncode=code, stdout=out, stderr=err)
        error = self._launch.explain(said, b"") if code else None
        if code == _RUNNER_FAILED:
            return not (isinstance(error, TransportError) and error.started is False)
        return isinstance(error, TransportError) and error.started is not False

    async def _remote_gone(self) -> bool:
        """See that nothing is left of remote work; return whether that could be seen."""
        if not self._launch.remote or (
            self._frames is not None and (self._frames.clean or not self._frames.ready)
        ):
            return True
        if not self._launch.gone or (self._frames is not None and self._frames.elusive):
            return False
        pause = 0.02
        while True:
            found = await self._beside(self._launch.gone)
            if found.error is None and not found.stdout.strip() and not self._may_come:
                return True
            if found.error is not None and any(
                words.encode() in found.stderr for words in self._launch.gone_words
            ):
                return True
            if self._launch.end:
                await self._end_remote()
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def _beside(self, argv: tuple[str, ...], timeout: float = REMOTE_TIMEOUT) -> Completed:
        """Run a command of the sandbox's own while this call is being ended."""
        command = Command(argv, timeout=timeout, output_limit=_STATUS_LIMIT, overflow="truncate")
        call = Call(Launch(argv=argv), command, anyio.current_time(), timeout)
        await call.supervise()
        if call.raised is not None:
            raise call.raised
        assert call.completed is not None
        return call.completed

    async def _ask_to_end(self, grace: float) -> None:
        """Send SIGTERM, and wait for the end."""
        if self._launch.stop:
            await self._ask_remote(grace)
            return
        if self._launch.remote:
            return
        if self._leader < 0:
            if not self._signal_group(signal.SIGTERM):
                return
        else:
            with suppress(OSError):
                signal.pidfd_send_signal(self._leader, signal.SIGTERM, None, WHOLE_GROUP)
        await self._until_exit(grace)

    async def _ask_remote(self, grace: float) -> None:
        """Have the signal sent by a command beside; the grace begins when that has ended, or has
        taken its time.
        """
        scope = anyio.CancelScope(deadline=anyio.current_time() + REMOTE_TIMEOUT + grace)

        async def ask() -> None:
            await self._keep_raised(self._beside, self._launch.stop, max(grace, REMOTE_TIMEOUT))
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with scope:
                await self._until_exit(math.inf)
            tasks.cancel_scope.cancel()

    async def _leader_gone(self) -> None:
        if self._leader >= 0:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._leader, signal.SIGKILL)
            await anyio.wait_readable(self._leader)

    async def _until_exit(self, seconds: float, sooner: Callable[[], bool] | None = None) -> None:
        """Deal with what comes until the process has ended, or ``sooner`` says that it is
        enough.
        """

        async def attend() -> None:
            while not self._exited and not (sooner is not None and sooner()):
                await self._turn()

        with anyio.CancelScope(deadline=anyio.current_time() + seconds):
            await self._keep_raised(attend)
            await self._keep_raised(
                attend
            )  # where the callback raised, which is not called any more

    async def _keep_raised(self, step: Any, *args: Any) -> None:
        """Take a step of the clean-up; an exception from the caller's callback does not stop the
        rest of it.
        """
        try:
            await step(*args)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as exc:
            if self.raised is None:
                self.raised = exc
            self._reason = "raised"

    async def _sweep(self) -> bool:
        """Kill what left the group but carries the call's mark, until a look finds none; return
        whether one could look.
        """
        if not self._mark:
            return False
        pause = 0.001
        patience = anyio.current_time() + _DOUBT
        try:
            while True:
                found = doubt = False
                for count, hit in enumerate(marked(self._mark.encode())):
                    found, doubt = found or hit is True, doubt or hit is None
                    if count % _PIDS_PER_TURN == _PIDS_PER_TURN - 1:
                        await anyio.lowlevel.checkpoint()
                if found:
                    patience = anyio.current_time() + _DOUBT
                elif not doubt or anyio.current_time() > patience:
                    return True
                await anyio.sleep(pause)
                pause = min(pause * 2, 0.05)
        except OSError:  # no descriptor left to look with
            return False

    async def _group_gone(self) -> None:
        assert self._group is not None
        pause = 0.0005
        while self._group.alive():
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _signal_group(self, signum: int) -> bool:
        assert self._group is not None
        try:
            return self._group.send(signum)
        except PermissionError:
            return True

    # --- pipes ------------------------------------------------------------------------------------

    def _open_pipes(self) -> tuple[int | None, int, int]:
        launch, command = self._launch, self._command
        stdin: int | None = None
        if launch.stdin is not None:
            feed = self._stdin_type(launch.stdin, hold=bool(launch.nonce), later=bool(launch.nonce))
            self._feeds.append(feed)
            stdin = feed.read_end
        keep_tail = command.overflow == "truncate"
        frames = Frames(launch.nonce) if launch.nonce else None
        stdout = self._open_output(
            "stdout", command.output_limit, keep_tail=keep_tail, frames=frames
        )
        stderr = self._open_output(
            "stderr", command.output_limit, keep_tail=keep_tail, frames=self._frames
        )
        for arg in launch.fd_args:
            if arg.fd is not None:
                fd = arg.fd
            elif arg.data is None:
                fd = self._open_output("stdout", _STATUS_LIMIT, keep_tail=True)
                self._status = self._outputs.pop()
            else:
                feed = Feed(arg.data)
                self._feeds.append(feed)
                fd = feed.read_end
            self._argv[arg.index] = f"{arg.prefix}{fd}"
            self._pass_fds.append(fd)
        return stdin, stdout, stderr

    def _open_output(
        self,
        name: Literal["stdout", "stderr"],
        limit: int,
        *,
        keep_tail: bool,
        frames: Frames | None = None,
    ) -> int:
        read_end, write_end = make_pipe()
        self._child_fds.append(write_end)
        output = self._output_type(name, read_end, limit, keep_tail=keep_tail, frames=frames)
        self._outputs.append(output)
        return write_end

    def _close_child_ends(self) -> None:
        for fd in self._child_fds:
            os.close(fd)
        self._child_fds.clear()
        for feed in self._feeds:
            if feed.done:
                feed.close_read_end()

    def _environment(self, *, mark: bool = True) -> dict[bytes, bytes]:
        launch = self._launch
        added = {
            os.fsencode(name): os.fsencode(value) for name, value in launch.env.known().items()
        }
        # The dict underneath, where there is one: a copy through the mapping's items costs as much
        # as two pipes.
        host: Mapping[bytes, bytes] = (
            getattr(os.environb, "_data", os.environb) if launch.inherit_env else {}
        )
        env = {**host, **added}
        if self._mark and mark:
            outer, own = os.environb.get(MARK.encode()), self._mark.encode()
            env[MARK.encode()] = outer + b":" + own if outer else own
        return env

    # --- events -----------------------------------------------------------------------------------

    @property
    def _streams_open(self) -> bool:
        return any(output.open for output in self._outputs)

    def _watch(self) -> bool:
        """Have a selector wait for the program's streams and its end; return whether that was
        possible.
        """
        assert self._process is not None
        if self._group is None:
            self._group = self._process.group = ProcessGroup(self._process.pid)
        self._last_resort = weakref.finalize(self, _kill, self._group, os.getpid())
        try:
            self._selector = selectors.DefaultSelector()
            for output in (*self._outputs, *([self._status] if self._status else ())):
                self._selector.register(output.fd, selectors.EVENT_READ, output)
            for feed in self._feeds:
                if not feed.done and not feed.waiting:
                    self._selector.register(feed.fd, selectors.EVENT_WRITE, feed)
            if self._group.pidfd >= 0:
                self._selector.register(self._group.pidfd, selectors.EVENT_READ, self._group)
            else:
                self._exit_seen = False
        except OSError as exc:
            program = self._launch.argv[0]
            message = f"{program!r} was started, but could not be watched, and was ended: {exc}"
            self._error = TransportError(message, started=True)
            return False
        return True

    async def _turn(self) -> None:
        """Wait until something can be read or written, or the program ends, and deal with all that
        is ready.
        """
        assert self._selector is not None
        assert self._process is not None
        if self._exit_seen:
            await anyio.wait_readable(self._selector.fileno())
            await self._serve_ready()
        else:
            with anyio.CancelScope(deadline=anyio.current_time() + _EXIT_POLL):
                await anyio.wait_readable(self._selector.fileno())
            await self._serve_ready()
            self._exited = self._exited or ended(self._process.pid)

    async def _serve_all(self) -> None:
        for _ in range(_LAST_LOOKS):
            if not await self._serve_ready():
                return

    async def _serve_ready(self) -> bool:
        """Deal with all that is ready; return whether there was something."""
        assert self._selector is not None
        ready = self._selector.select(0)
        for key, _events in ready:
            source = key.data
            if isinstance(source, Output):
                await self._read(source)
            elif isinstance(source, Feed):
                self._feed(source)
            else:
                self._exited = True
                if self._streams_open:
                    self._selector.unregister(key.fd)
        return bool(ready)

    async def _read(self, output: Output) -> None:
        assert self._selector is not None
        data = output.read()
        if output.at_end:
            # Not left to close: a child that another thread is just forking holds a copy, which
            # keeps the entry alive.
            self._selector.unregister(output.fd)
            output.close()
        if self._frames is not None and self._feeds and self._feeds[0].waiting:
            self._open_talks(output)
        if not data:
            return
        if output is self._status and self._leader < 0 and self._launch.leader is not None:
            self._pin_leader(self._launch.leader(output.so_far()))
        if self._callback is not None and output is not self._status and self._reason != "raised":
            result = self._callback(output.name, data)
            if inspect.isawaitable(result):
                await self._off_the_clock(result)
        if output.overflowed and self._reason is None:
            self._reason = "overflow"

    def _open_talks(self, output: Output) -> None:
        """Tell the supervisor its task as soon as it is there; hang up on a client that asks a
        question instead.
        """
        assert self._selector is not None
        assert self._frames is not None
        if self._frames.ready:
            feed = self._feeds[0]
            feed.begin()
            if feed.done:
                feed.close_read_end()
            else:
                self._selector.register(feed.fd, selectors.EVENT_WRITE, feed)
        elif output.name == "stdout" and output.frames is not None and output.frames.opening:
            self._close_stdin()

    def _pin_leader(self, pid: int | None) -> None:
        if pid is not None and self._process is not None:
            self._leader = pin(pid, self._process.pid)

    async def _off_the_clock(self, result: Awaitable[None]) -> None:
        """Wait for the callback; its time counts for the timeout, but is not the descendants' time
        to let go.
        """
        scope, began = self._last_wait, anyio.current_time()
        if scope is None:
            await result
            return
        left = scope.deadline - began
        scope.deadline = max(scope.deadline, self._deadline)
        await result
        scope.deadline = anyio.current_time() + left

    def _feed(self, feed: Feed) -> None:
        assert self._selector is not None
        feed.write()
        if feed.done:
            self._selector.unregister(feed.fd)
            if feed.hold:
                feed.close_read_end()
            else:
                feed.close()

    def _release(self) -> None:
        """Give back every descriptor; kill what is still there when the event loop itself is going
        away.
        """
        if self._group is not None:
            if not self._exited:
                self._signal_group(signal.SIGKILL)
            if self._last_resort is not None:
                self._last_resort.detach()
            self._group.close()
        if self._leader >= 0:
            os.close(self._leader)
        self._close_child_ends()
        for output in self._outputs:
            output.close()
        if self._status is not None:
            self._status.read_rest()
            self._status.close()
        for feed in self._feeds:
            feed.close()
        if self._guard is not None:
            if self._process is not None and (not self._seen_through or self.cleanup_failed):
                self._guard.reap_later()  # it goes on where we gave up
            else:
                self._guard.kill()  # before the end of its stdin can set it going
        if self._lifeline is not None:
            self._lifeline.close()
        if self._selector is not None:
            self._selector.close()

    # --- the outcome ------------------------------------------------------------------------------

    def _outcome(self) -> Completed:
        command = self._command
        if self._frames is not None and self._frames.unstarted is not None:
            self._outputs[1] = Output(
                "stderr", -1, 0, keep_tail=False, frames=self._frames
            )  # but what the shell said
        elif self._frames is not None and not self._frames.started:
            self._keep_clients_words()
        stdout, stderr = self._outputs[:2] if len(self._outputs) == 2 else (None, None)
        returncode = (
            self._process.returncode if self._process is not None and self._exited else None
        )
        if self._frames is not None and self._frames.exit_status is not None:
            returncode = self._frames.exit_status
        completed = Completed(
            argv=tuple(self._argv),
            returncode=returncode,
            stdout=stdout.take() if stdout else b"",
            stderr=stderr.take() if stderr else b"",
            stdout_total=stdout.total if stdout else 0,
            stderr_total=stderr.total if stderr else 0,
            output_incomplete=self._incomplete,
            duration=anyio.current_time() - self._began,
            cleanup=self._cleanup,
        )
        error = self._error or self._judge(completed, command)
        if error is None:
            return completed
        if isinstance(error, (NotStartedError, TransportError)):
            returncode = None  # the runner's status, if any, is not the program's
        elif self._frames is not None:
            returncode = self._frames.exit_status
        elif self._launch.remote and returncode is not None and returncode < 0:
            returncode = None  # the client's, not the program's
        return attrs.evolve(completed, returncode=returncode, error=error)

    def _keep_clients_words(self) -> None:
        """Have stderr say why nothing was started: the client's words, wherever it wrote them."""
        for output in reversed(self._outputs):
            if output.frames is not None:
                self._outputs[1].keep(output.frames.opening)

    def _judge(self, completed: Completed, command: Command) -> SpawnError | None:
        program = command.argv[0]
        if self._reason == "overflow":
            stream = next(output.name for output in self._outputs if output.overflowed)
            return OutputLimitError(
                f"{program!r} wrote more than {command.output_limit} bytes to {stream}; "
                "raise output_limit, or use overflow='truncate'"
            )
        if self._reason == "timeout":
            if self._frames is not None and not self._frames.ready:
                client = os.path.basename(self._argv[0])
                return SpawnTimeoutError(
                    f"{program!r} was not started: {client} was not ready within {self._timeout:g} s"
                )
            return SpawnTimeoutError(
                f"{program!r} had not ended after {self._timeout:g} s, and was ended"
            )
        if self._launch.explain is not None:
            status = self._status.take() if self._status is not None else b""
            if self._frames is not None:
                words = [
                    word
                    for output in self._outputs
                    if output.frames
                    for word in output.frames.words
                ]
                status = "\n".join(words).encode()
            error = self._launch.explain(completed, status)
            if error is not None:
                return error
        code = completed.returncode
        if code is None:
            message = f"{program!r} ended, but its status is unknown: other code of this process waits for any child"
            return TransportError(message, started=True)
        if code < 0 and self._launch.remote:
            return TransportError(
                f"the client of {program!r} was ended from outside by signal {-code}", started=None
            )
        if code < 0:
            return ExitError(f"{program!r} was ended by signal {-code} ({_signal_name(-code)})")
        return ExitError(f"{program!r} exited with status {code}") if code else None


def _kill(group: ProcessGroup, host: int) -> None:
    """End the work of a call that will not go on: its loop was closed and forgotten, or the host is
    exiting.
    """
    if os.getpid() == host:
        with suppress(OSError):
            group.send(signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
