"""A local process with its pipes and its guard; it carries one piece of work, or many."""

from __future__ import annotations

import errno
import os
import signal
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import anyio
from attrs import evolve, frozen

from anyspawn._model import Launch
from anyspawn._spawn import proc
from anyspawn._spawn.child import Child, Guard, Start, StartedButLostError
from anyspawn._spawn.diagnose import HOST_ERRORS, cwd_problem, describe
from anyspawn._spawn.streams import Capture, Feed, Output, Watch, make_pipe
from anyspawn.exceptions import NotStartedError, SpawnError, TransportError

if TYPE_CHECKING:
    from anyspawn._bounds import Bound

__all__ = ["BOUNDS", "Bounds", "Connection", "open_connection"]

STATUS_LIMIT = 64 * 1024

_SIGCHLD_IGNORED = (
    "{!r} was not started: this process ignores SIGCHLD, so that no program's exit status can be "
    "known; call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
)


@frozen
class Bounds:
    """How long the steps of a call may take, in seconds.

    Args:
        cleanup: All of the clean-up.
        remote: One step that a daemon or a supervisor carries out.
        each: The time that each other clean-up of remote work adds to both.
        settle: Reading the rest of a stream that something still holds.
        exit_poll: Between two checks for the exit, if there is no pidfd.
        doubt: Waiting for a process that is just executing a program, and may belong to the call.
    """

    cleanup: float = 5.0
    remote: float = 2.0
    each: float = 0.25
    settle: float = 0.1
    exit_poll: float = 0.05
    doubt: float = 1.0


BOUNDS = Bounds()


class Connection:
    """A started process, and everything that must be released.

    Attributes:
        launch: The launch, with every placeholder filled in.
        mark: The mark in its descendants' environment; empty if they have none.
        child: The process.
        cancelled: The cancellation that came during the start, if any.
        stdin: The pipe that it reads.
        outputs: The pipes that it writes to: stdout and stderr.
        status: The pipe of the runner's reports, if there is one.
        leader: The process that leads the work, if it is known and not the child.
        settled: Nothing of it is left, as far as is known.
        doubtful: A clean-up could not be confirmed.
    """

    def __init__(
        self,
        launch: Launch,
        mark: str,
        stdin: Feed,
        feeds: list[Feed],
        outputs: tuple[Output, Output],
        status: Output | None,
        watch: Watch,
        guard: Guard | None,
        child: Child,
        cancelled: BaseException | None,
    ) -> None:
        self.launch = launch
        self.mark = mark.encode()
        self.child = child
        self.cancelled = cancelled
        self.stdin = stdin
        self.outputs = self.stdout, self.stderr = outputs
        self.status = status
        self.leader: proc.Leader | None = None
        self.settled = self.doubtful = False
        self._feeds = feeds
        self._guard = guard
        self._bound: Bound | None = None
        self._reached = ""
        self._led = False
        self._watch = watch
        self._exit_is_watched = False
        if child.pidfd >= 0:
            with suppress(OSError):
                watch.exits(child.pidfd)
                self._exit_is_watched = True
        if launch.limits is not None and launch.leader is None:
            with suppress(OSError):  # it has exited already
                self._hold(child.pid)
        # The event loop may be closed and forgotten, or the interpreter exit, in the middle.
        self._last_resort = weakref.finalize(self, child.kill_now)
        for feed in (stdin, *feeds):
            self.pump(feed)

    async def wait(self) -> None:
        """Wait until something can be read or written, or the process has exited."""
        if self._exit_is_watched or self.child.exited:
            await self._watch.wait()
            return
        with anyio.move_on_after(BOUNDS.exit_poll):
            await self._watch.wait()
        self.child.look()

    def ready(self) -> list[Output | Feed]:
        """Return what can be read or written; record the exit."""
        found = self._watch.ready()
        if None in found:
            self.child.exited = True
            self._watch.forget(self.child.pidfd)
        return [source for source in found if source is not None]

    def pump(self, feed: Feed) -> None:
        if not feed.done:
            feed.pump()
        if feed.done:
            self._watch.forget(feed.fd)
            feed.finish()
            feed.drop_read_end()
        else:
            self._watch.writes(feed)

    def tell(self, data: bytes) -> None:
        """Write more to stdin, as much as its pipe takes now."""
        if self.stdin.fd >= 0:
            self.stdin.add(data)
            self.pump(self.stdin)

    def hang_up(self) -> None:
        """Close stdin, so that a supervisor ends with everything that it started."""
        self._watch.forget(self.stdin.fd)
        self.stdin.close()
        for feed in self._feeds:
            if feed.waiting:  # the runner must see that no data will come
                feed.close()

    def pause(self, output: Output) -> None:
        """Stop reading a stream, so that the program waits."""
        self._watch.forget(output.fd)

    def resume(self, output: Output) -> None:
        if output.open:
            self._watch.reads(output)

    def at_end(self, output: Output) -> None:
        self._watch.forget(output.fd)
        output.close()

    def reported(self) -> bytes:
        """Return everything that the runner reported."""
        if self.status is None:
            return b""
        for _ in self.status.read_rest():
            pass
        return self.status.capture.value()

    def note_status(self) -> None:
        """Look for the work's leader in the runner's reports, and apply its limits.

        Raises:
            TransportError: Its limits could not be set; it has not started the program.
        """
        if self._led or self.launch.leader is None or self.status is None:
            return
        pid = self.launch.leader(self.status.capture.value())
        if pid is None:
            return
        self._led = True
        self.leader = proc.Leader.find(pid, self.child.pid)
        if not self.child.look():
            try:
                self._hold(pid)
            except ProcessLookupError:  # it has exited, and the runner says why
                pass
            except OSError as exc:
                from anyspawn._bounds import unbound

                raise unbound(self.launch.argv[0], exc) from None
        for feed in self._feeds:
            if feed.waiting:
                feed.begin()
                self.pump(feed)

    def _hold(self, pid: int) -> None:
        if self.launch.limits is not None:
            from anyspawn._bounds import Bound

            alone = self.launch.leader is not None
            self._bound = Bound(self.launch.limits, pid, alone=alone)

    def reached(self) -> str:
        """Describe the limits that were reached; empty if none is known to be."""
        return self._reached if self._bound is None else self._bound.reached()

    async def until_held(self) -> None:
        """Wait until the limits apply to the work's leader, or it has exited."""
        while self.status is not None and not self._led and not self.child.exited:
            await self.wait()
            if self.status in self.ready():
                self.status.read()
                if self.status.eof:
                    self.at_end(self.status)
                    return
                self.note_status()

    def signal_group(self, signum: int) -> bool:
        """Signal the process's group; return whether there was one, even if it may not be
        signalled.
        """
        try:
            return self.child.signal_group(signum)
        except PermissionError:
            return True

    async def leader_gone(self) -> None:
        """Kill the process that leads the work, and wait until it has exited."""
        if self.leader is not None:
            self.leader.kill()
            await anyio.wait_readable(self.leader.pidfd)
            self.leader.reap()

    def close(self) -> None:
        """Close every descriptor, and kill what still runs. It needs no event loop."""
        self._last_resort.detach()
        if not self.settled:
            self.child.kill_now()
        self.child.close()
        if self._bound is not None:
            self._reached = self._bound.lift()
            self._bound = None
        if self.leader is not None:
            self.leader.close()
        for end in (*self.outputs, self.status, self.stdin, *self._feeds):
            if end is not None:
                end.close()
        if self._guard is not None:
            self._guard.let_go(needed=not self.settled)
            self._guard = None
        self._watch.close()


async def open_connection(
    launch: Launch, call_id: str, make_stdin: Callable[[], Feed], *, merged: bool = False
) -> Connection:
    """Start the local process of a launch.

    Args:
        launch: It, with all placeholders but descriptors filled in.
        call_id: The call's id.
        make_stdin: Makes the pipe that it reads.
        merged: Its stderr goes to its stdout.

    Raises:
        SpawnError: It did not start.
    """
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise NotStartedError(_SIGCHLD_IGNORED.format(launch.argv[0]))
    mark = ""
    if launch.mark:
        # A client's mark differs from the id that its supervisor looks for, because both may be in
        # one pid namespace.
        mark = f"{'client.' if launch.task else ''}{call_id}.{os.urandom(4).hex()}"
    env = _environment(launch, mark)
    program = launch.argv[0]
    undo: list[Callable[[], object]] = []
    theirs: list[int] = []
    try:
        # Everything that takes a descriptor comes before the process.
        watch = Watch()
        undo.append(watch.close)
        stdin = make_stdin()
        undo.append(stdin.close)
        stdout, stderr = _output("stdout", undo, theirs), _output("stderr", undo, theirs)
        stdout_fd, stderr_fd = theirs
        argv, status, feeds, pass_fds = _fill_fds(launch, undo, theirs)
        for output in (stdout, stderr, status):
            if output is not None:
                watch.reads(output)
        guard = None
        if launch.guard:
            program = launch.guard[0]
            guard = Guard(launch.guard, launch.cwd, _environment(launch, ""))
            undo.append(guard.let_go)
            program = launch.argv[0]
        start = Start(
            argv=argv,
            stdin=stdin.read_end if stdin.read_end >= 0 else None,
            stdout=stdout_fd,
            stderr=stdout_fd if merged else stderr_fd,
            cwd=launch.cwd,
            env=env,
            pass_fds=pass_fds,
            user=launch.user,
            dies_with_parent=launch.dies_with_parent,
        )
        child, cancelled = await Child.open(start, mark.encode())
    except BaseException as exc:
        for give_back in reversed(undo):
            give_back()
        if isinstance(exc, StartedButLostError):
            message = f"{program!r} was started, could not be watched, and was killed: {exc}"
            raise TransportError(message, started=True, kind="resources") from None
        if isinstance(exc, OSError):
            raise _not_started(launch, program, exc, env) from None
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    if launch.fd_args:
        launch = evolve(launch, argv=argv)
    outputs = (stdout, stderr)
    return Connection(launch, mark, stdin, feeds, outputs, status, watch, guard, child, cancelled)


def _output(
    name: Literal["stdout", "stderr"], undo: list[Callable[[], object]], theirs: list[int]
) -> Output:
    """Return a stream to read; append the descriptor that the program writes to."""
    read_end, write_end = make_pipe()
    theirs.append(write_end)
    output = Output(name, read_end)
    undo.append(output.close)
    return output


def _fill_fds(
    launch: Launch, undo: list[Callable[[], object]], theirs: list[int]
) -> tuple[tuple[str, ...], Output | None, list[Feed], list[int]]:
    """Return the argv with the descriptors' numbers, the pipe of reports, the fed pipes, and the
    numbers.
    """
    if not launch.fd_args:
        return launch.argv, None, [], []
    argv, status, feeds, fds = list(launch.argv), None, [], []
    for arg in launch.fd_args:
        if arg.fd is not None:
            fd = arg.fd
        elif arg.data is None:
            status = _output("stdout", undo, theirs)
            status.begin(Capture(STATUS_LIMIT, "truncate"), None)
            fd = theirs[-1]
        else:
            feeds.append(feed := Feed(arg.data, later=arg.gate))
            undo.append(feed.close)
            fd = feed.read_end
        argv[arg.index] = f"{arg.prefix}{fd}"
        fds.append(fd)
    return tuple(argv), status, feeds, fds


def _environment(launch: Launch, mark: str) -> dict[bytes, bytes]:
    added = {os.fsencode(name): os.fsencode(value) for name, value in launch.env.known().items()}
    if launch.inherit_env:
        # The dict underneath: a copy through the mapping's items costs as much as two pipes.
        host: Mapping[bytes, bytes] = getattr(os.environb, "_data", os.environb)
        if launch.cwd is not None and os.path.isabs(launch.cwd):
            added = {b"PWD": os.fsencode(launch.cwd), **added}  # as Go's os/exec does
        added = {**host, **added}
    if mark:
        outer, own = os.environb.get(proc.MARK.encode()), mark.encode()
        added[proc.MARK.encode()] = outer + b":" + own if outer else own
    return added


def _not_started(
    launch: Launch, program: str, exc: OSError, env: Mapping[bytes, bytes]
) -> SpawnError:
    if exc.errno not in HOST_ERRORS and (problem := cwd_problem(launch.cwd)):
        return NotStartedError(f"{program!r} was not started: {problem}", kind="cwd")
    if launch.user is not None and exc.errno in (errno.EPERM, errno.EACCES):
        return _refused_to_user(launch.user[0], program, exc)
    path = os.fsdecode(env.get(b"PATH", b"")) or os.defpath
    kind, reason = describe(program, launch.cwd, path, exc)
    if launch.runner is None or exc.errno in HOST_ERRORS:
        return NotStartedError(reason, kind=kind)
    reason = f"{reason}; {launch.install}" if launch.install else reason
    return TransportError(reason, started=False, kind="runner")


def _refused_to_user(uid: int, program: str, exc: OSError) -> NotStartedError:
    if exc.errno == errno.EPERM:
        reason = f"{program!r} was not started: this process cannot become user {uid}"
        return NotStartedError(reason, kind="user")
    reason = f"{program!r} is not executable for user {uid}; see its permissions and its folders'"
    return NotStartedError(reason, kind="not_executable")
