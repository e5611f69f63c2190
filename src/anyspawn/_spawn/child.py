"""The only place that starts processes, signals them and reaps them.

`anyio.open_process` opens a process, with descriptors that anyspawn opened. ``Popen``, on the event
loop's thread, opens five kinds instead (docs/design.md says why): programs on loops that are
neither asyncio's own nor trio's; on trio, runners that ask to die with their parent, and programs
for which there is no worker thread; programs with a user of their own; guards, which outlive their
loop.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, Self

import anyio
import anyio.lowlevel
from attrs import frozen

from anyspawn._spawn import proc
from anyspawn._spawn.streams import Feed
from anyspawn._spawn.tasks import on_asyncio

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ["Child", "Guard", "Start", "StartedButLostError", "ended"]

_PATIENCE = 20
_LOST = 0.1
_ROOM = 24
"""Descriptors that an event loop may need to start and to watch a child."""


class StartedButLostError(Exception):
    """The process was started, but the event loop could not watch it; it was killed."""


@frozen(kw_only=True)
class Start:
    """How to start a process.

    Args:
        argv, cwd, env, pass_fds, stdin, stdout, stderr: As for `subprocess.Popen`.
        user: The numbers of its user and group; it has no other groups. ``None``: this process's
            own.
        dies_with_parent: It asks the kernel to kill it when the thread that started it ends.
    """

    argv: Sequence[str]
    stdin: int | None
    stdout: int
    stderr: int
    cwd: str | None
    env: Mapping[bytes, bytes]
    pass_fds: Sequence[int] = ()
    user: tuple[int, int] | None = None
    dies_with_parent: bool = False

    def by_popen(self) -> subprocess.Popen[bytes]:
        """Start it on this thread, a session of its own."""
        others: dict[str, Any] = {}
        if self.user is not None:
            others = {"user": self.user[0], "group": self.user[1], "extra_groups": []}
        return subprocess.Popen(self.argv, **self._how(), **others)

    async def by_anyio(self) -> anyio.abc.Process:
        """Have the event loop start it, a session of its own."""
        return await anyio.open_process(self.argv, **self._how())

    def _how(self) -> dict[str, Any]:
        return {
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "cwd": self.cwd,
            "env": self.env,
            "pass_fds": self.pass_fds,
            "start_new_session": True,
        }


class Child:
    """A child that leads its own session and process group, and that group, which can outlive it.

    A pidfd identifies the group (Linux 5.3 to watch it, 6.9 to signal it). Elsewhere the group is
    signalled by number; after its leader was reaped, only if no process has that number: the kernel
    does not reuse a number while a group has it.

    Attributes:
        pid: Its process number.
        pidfd: Readable once it has exited; -1 if there is none.
        returncode: Its status, once `wait` has returned; ``None`` if other code took it.
        exited: Whether it is known to have exited.
    """

    def __init__(
        self,
        process: anyio.abc.Process | subprocess.Popen[bytes],
        *,
        reaped_by_loop: bool = False,
    ) -> None:
        self._process = process
        self._host = os.getpid()
        self._waited = False
        self._reaped_by_loop = reaped_by_loop
        self.pid = process.pid
        self.returncode: int | None = None
        self.exited = False
        self.pidfd = -1
        with suppress(OSError, AttributeError):  # AttributeError: macOS
            self.pidfd = os.pidfd_open(self.pid)
        if not _is_our_child(self.pid):  # the loop has reaped it; the number may be reused
            self.close()
            self.exited = True

    @classmethod
    async def open(cls, start: Start, mark: bytes) -> tuple[Self, BaseException | None]:
        """Start a process; return it, and the cancellation that came during the start, if any.

        Args:
            start: How.
            mark: The mark in its environment, to find it if the loop loses it.

        Raises:
            OSError: It could not be started.
            StartedButLostError: It was started, but could not be watched; it was killed.
        """
        if start.user is not None:
            return cls(start.by_popen()), None  # anyio 4.12 mistakes the group for the groups
        if on_asyncio():
            import asyncio

            if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
                process, cancelled = await _open_on_asyncio(start, mark)
                return cls(process, reaped_by_loop=True), cancelled
        elif not start.dies_with_parent and _trio_has_a_thread():
            with suppress(RuntimeError):  # no thread can be started
                return cls(await start.by_anyio()), None
        return cls(start.by_popen()), None

    @property
    def ours(self) -> bool:
        """Whether this is the process that started it, not a fork of that process."""
        return os.getpid() == self._host

    def look(self) -> bool:
        """Return whether it has exited, without reaping it."""
        self.exited = self.exited or ended(self.pid)
        return self.exited

    @property
    def exited_by_itself(self) -> bool:
        """Whether it has exited, and was not killed. Reaps it if no loop does."""
        if not self.look():
            return False
        self._is_reaped()
        code = self.returncode
        if not self._waited:
            code = self._process.returncode
        return code is not None and code >= 0

    async def wait(self) -> None:
        """Wait until it has exited, reap it, and record its status."""
        if self._waited:
            return
        if isinstance(self._process, subprocess.Popen):
            await self._until_exited()
            while not self._reap(self._process):  # macOS reports the exit too early
                await anyio.lowlevel.checkpoint()
        elif self._reaped_by_loop:
            self.returncode = await self._process.wait()
        else:
            await self._until_exited()
            # trio takes a status that other code took for 0, so ask before it reaps.
            known = _is_our_child(self.pid)
            while (status := self._process.returncode) is None:  # to ask trio reaps
                await anyio.lowlevel.checkpoint()
            self.returncode = status if known else None
        self.exited = self._waited = True

    async def _until_exited(self) -> None:
        if self.exited:
            return
        if self.pidfd >= 0:
            await anyio.wait_readable(self.pidfd)
        pause = 0.0002
        while not ended(self.pid):
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _reap(self, popen: subprocess.Popen[bytes]) -> bool:
        pid = self.pid
        with suppress(ChildProcessError):  # other code waits for any child
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        if pid:
            popen.returncode = 0  # so that Popen does not wait for it again
            self.exited = self._waited = True
        return bool(pid)

    def _is_reaped(self) -> bool:
        """Reap it if it has exited; return whether that is done, or left to the loop."""
        if isinstance(self._process, subprocess.Popen):
            return self._waited or self._reap(self._process)
        return self._reaped_by_loop or self._process.returncode is not None  # to ask trio reaps

    def kill_now(self) -> None:
        """Kill the group, and reap its leader if no loop does."""
        if not self.ours:
            return
        with suppress(OSError):
            self.signal_group(signal.SIGKILL)
        for _ in range(_PATIENCE):
            if self._is_reaped():
                return
            time.sleep(0.001)
        if isinstance(self._process, subprocess.Popen):
            _reap_beside(self._process)

    def signal_group(self, signum: int) -> bool:
        """Signal every process of the group; return whether there was one.

        Raises:
            PermissionError: This process may not signal any of them (a set-user-ID program).
        """
        if not self.ours:
            return False
        try:
            if self.pidfd >= 0:
                try:
                    signal.pidfd_send_signal(self.pidfd, signum, None, proc.WHOLE_GROUP)
                except OSError as exc:
                    if exc.errno not in (errno.EINVAL, errno.ENOSYS):
                        raise
                else:
                    return True
            if not _is_our_child(self.pid) and _in_use(self.pid):
                return False
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            return False
        return True

    def group_alive(self) -> bool:
        """Whether the group has a process that is not a zombie.

        Reaps orphans of the group that were given to this process (PID 1, or a subreaper).
        """
        with suppress(PermissionError):
            if not self.signal_group(0):
                return False
        try:
            alive = proc.members(self.pid)
        except OSError:  # no way to look: a group that can be signalled exists
            alive = True
        if self._waited:
            with suppress(ChildProcessError):
                while os.waitpid(-self.pid, os.WNOHANG)[0]:
                    pass
            with suppress(PermissionError):
                alive = alive and self.signal_group(0)
        return alive

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Guard:
    """A process that runs during a call, and can outlive the event loop and this process.

    Args:
        argv, cwd, env: As for `subprocess.Popen`. It acts when its standard input is closed.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self, argv: Sequence[str], cwd: str | None, env: Mapping[bytes, bytes]) -> None:
        self._host = os.getpid()
        self._lifeline = Feed(hold=True)
        null = subprocess.DEVNULL
        stdin = self._lifeline.read_end
        try:
            start = Start(argv=argv, stdin=stdin, stdout=null, stderr=null, cwd=cwd, env=env)
            self._popen = start.by_popen()
        except BaseException:
            self._lifeline.close()
            raise
        self._lifeline.drop_read_end()

    def let_go(self, *, needed: bool = False) -> None:
        """Let it do its work if that is needed; otherwise kill it."""
        if needed:
            _reap_beside(self._popen)
        elif os.getpid() == self._host:
            self._popen.kill()  # before the end of its stdin can set it going
            self._popen.wait()
        self._lifeline.close()


def _reap_beside(popen: subprocess.Popen[bytes]) -> None:
    import threading

    with suppress(RuntimeError):  # no thread is available, or the interpreter exits
        threading.Thread(target=popen.wait, name="anyspawn reaper", daemon=True).start()


def _trio_has_a_thread() -> bool:
    import trio

    return trio.to_thread.current_default_thread_limiter().available_tokens > 0


async def _open_on_asyncio(
    start: Start, mark: bytes
) -> tuple[anyio.abc.Process, BaseException | None]:
    """Open a process in a plain task, which no cancellation of the caller reaches: on a
    cancellation asyncio would kill the process, but not its children.
    """
    import asyncio

    _make_room(max(start.stdout, start.stderr, *start.pass_fds))
    opening = asyncio.ensure_future(start.by_anyio())
    cancelled: asyncio.CancelledError | None = None
    while not opening.done():
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError as exc:
            cancelled = exc  # a fork takes no time, so finish it
            if opening.cancelling():  # every task of the loop is being cancelled
                # asyncio kills the process. In 3.11 it then waits forever for the exit, which a
                # cancelled task should report.
                asyncio.get_running_loop().call_later(_LOST, opening.cancel)
        except Exception:  # noqa: S110  `result` raises it
            pass
    try:
        process = opening.result()
    except asyncio.CancelledError:  # every task of the loop was cancelled
        kill_marked(mark)
        raise
    except (OSError, RuntimeError) as exc:  # RuntimeError: no thread to watch it with (3.11)
        if _end_lost(exc):
            kill_marked(mark)
            raise StartedButLostError(str(exc)) from None
        raise
    return process, cancelled


def _end_lost(exc: BaseException) -> bool:
    """Kill and reap the child that asyncio started but could not watch, if there is one. asyncio
    raises without a reference to it, but the arguments of its child watcher are in the traceback's
    frames.
    """
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        if frame.f_code.co_name == "add_child_handler":
            pid, transport = frame.f_locals["pid"], frame.f_locals["args"][0]
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            transport.close()  # which reaps it
            return True
    return False


def _make_room(highest: int) -> None:
    """Check that enough descriptors are free for the event loop after the fork.

    Raises:
        OSError: There are not enough.
    """
    if resource is None:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if highest + _ROOM < soft:
        return
    held: list[int] = []
    try:
        held.extend(os.dup(highest) for _ in range(4))
    finally:
        for fd in held:
            os.close(fd)


def kill_marked(mark: bytes) -> bool:
    """Kill the processes that carry a mark, in one search; return whether there was one."""
    if not mark:
        return False
    try:
        return sum(found is True for found in proc.sweep(mark)) > 0  # it kills as it goes
    except OSError:
        return False


def ended(pid: int) -> bool:
    """Whether the child ``pid`` has exited, reaped or not."""
    return _has_exited(pid) is not False


def _is_our_child(pid: int) -> bool:
    """Whether ``pid`` is a child that is not reaped yet, so that the number is still its own."""
    return _has_exited(pid) is not None


def _has_exited(pid: int) -> bool | None:
    """Whether a child has exited; ``None`` if it is not, or no longer, a child of this process."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return None


def _in_use(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
