"""Signals to a program's process group and to what left it, never to a number that may have passed
to someone else.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

__all__ = [
    "MARK",
    "WHOLE_GROUP",
    "ProcessGroup",
    "child_is_ours",
    "ended",
    "marked",
    "pin",
    "replaced",
]

MARK = "ANYSPAWN_ID"
"""The variable that marks a call's processes; nested calls append theirs, separated by a colon."""

WHOLE_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP of Linux 6.9

_STATE, _PARENT, _GROUP, _THREADS, _VSIZE, _CODE, _ENV_START, _ENV_END = 0, 1, 2, 17, 20, 23, 47, 48
"""Places of fields in /proc/PID/stat behind the name.
https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""
_USUAL = 1 << 16
_LOOKS = 3


def child_is_ours(pid: int) -> bool:
    """Whether ``pid`` is a child that nobody has waited for yet, so that its number cannot have
    been reused.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def ended(pid: int) -> bool:
    """Whether the child ``pid`` has ended, waited for or not."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _in_use(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class ProcessGroup:
    """The session and process group that a child leads; it outlives the child.

    A pidfd pins the group's identity where the kernel has them (Linux >= 5.3 to watch, >= 6.9 to
    signal the group). Elsewhere the group is signalled by number, and once its leader was waited
    for only while no process has that
    number: a number is not given out again while a group bears it, so one in use means that the
    group is gone.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = -1
        if not hasattr(os, "pidfd_open"):
            return
        with suppress(OSError):
            fd = os.pidfd_open(pid)
            if child_is_ours(pid):
                self.pidfd = fd
            else:
                os.close(fd)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def send(self, signum: int) -> bool:
        """Signal every process of the group; return whether there was one.

        Raises:
            PermissionError: None of them may be signalled by us (a set-user-ID program).
        """
        try:
            if self.pidfd >= 0:
                try:
                    signal.pidfd_send_signal(self.pidfd, signum, None, WHOLE_GROUP)
                except OSError as exc:
                    if exc.errno not in (errno.EINVAL, errno.ENOSYS):
                        raise
                else:
                    return True
            if not child_is_ours(self.pid) and _in_use(self.pid):
                return False
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            return False
        return True

    def alive(self) -> bool:
        """Whether the group has a process that is not a zombie.

        In a container without an init, the zombies of orphans stay.
        """
        with suppress(PermissionError):
            if not self.send(0):
                return False
        try:
            members = [
                stat for pid in _pids() if (stat := _stat(pid)) and stat[_GROUP] == b"%d" % self.pid
            ]
        except OSError:  # no descriptor left to look with
            return True
        return any(stat[_STATE] not in (b"Z", b"X") for stat in members) or not os.path.isdir(
            "/proc/self"
        )


def pin(pid: int, parent: int) -> int:
    """Return a pidfd of ``pid`` if it is a child of ``parent``, else -1."""
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
    try:
        found = int(_stat(pid)[_PARENT])
    except (OSError, IndexError):
        found = -1
    if found == parent:
        return fd
    os.close(fd)
    return -1


def replaced(parent: int) -> bool:
    """Whether a child of ``parent`` has become another program than its parent is."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children", "rb", buffering=0) as file:
            children = [int(pid) for pid in (file.read() or b"").split()]
    except OSError:  # it is gone, or this kernel does not tell
        return False
    own = _command_line(parent)
    return any(_command_line(child) not in (b"", own) for child in children)


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return file.read() or b""
    except OSError:
        return b""


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _read(path: str) -> bytes | None:
    """Return what a file of /proc says: nothing where the process is gone, ``None`` where it is not
    ours to look at.
    """
    size = _USUAL
    try:
        with open(path, "rb", buffering=0) as file:
            while len(said := os.pread(file.fileno(), size, 0)) == size:
                size *= (
                    8  # all at once, as between two readings the process may become another program
                )
            return said
    except (FileNotFoundError, ProcessLookupError):
        return b""
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None


def _stat(pid: int) -> list[bytes]:
    """Return what is known of a process, from its state on, or nothing where it is gone."""
    return (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()


def _carries(pid: int, mark: bytes) -> bool | None:
    """Return whether a process has ``mark`` in its environment; ``None`` where it is just becoming
    another program.
    """
    for _ in range(_LOOKS):
        variables = _read(f"/proc/{pid}/environ")
        if variables is None:
            return False
        if variables:
            return mark in variables
        fields = _stat(pid)
        if len(fields) <= _ENV_END:
            return False
        if (
            fields[_STATE] == b"Z" and fields[_THREADS] != b"1"
        ):  # its first thread has ended, others have not
            with suppress(FileNotFoundError, ProcessLookupError):
                threads = os.listdir(f"/proc/{pid}/task")
                return any(
                    mark in (_read(f"/proc/{pid}/task/{thread}/environ") or b"")
                    for thread in threads
                )
        if fields[_VSIZE] == b"0":  # a thread of the kernel's, or a zombie
            return False
        if fields[_CODE] == b"0":
            return None
        if fields[_ENV_START] == fields[_ENV_END]:
            return False
    return False  # it took its variables away


def marked(mark: bytes) -> Iterator[bool | None]:
    """Kill what carries ``mark`` in its environment, a process a step; yield for each process
    whether it did.

    ``None`` is yielded for one that is just becoming another program.

    The process is held by a pidfd before its environment is read a second time, so that the signal
    cannot reach another that took over its number. Without /proc nothing is yielded.
    """
    own = os.getpid()
    for pid in _pids():
        found = False if pid == own else _carries(pid, mark)
        if found:
            try:
                fd = os.pidfd_open(pid)
            except (ProcessLookupError, AttributeError):
                pass
            except OSError as exc:
                if (
                    exc.errno != errno.ENOSYS
                ):  # without pidfds it can be seen to end, but not safely be signalled
                    raise
            else:
                try:
                    if _carries(pid, mark):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
                finally:
                    os.close(fd)
        yield found
