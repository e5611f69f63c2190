"""Processes that are not children of this one: what /proc says of them, and the mark that finds
those of a call.

https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html has the fields. A /proc of another pid
namespace numbers other processes; it counts as missing.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

__all__ = ["MARK", "WHOLE_GROUP", "Leader", "is_carried", "is_ours", "members", "sweep"]

MARK = "ANYSPAWN_ID"
"""The variable that marks a call's processes; nested calls append theirs, separated by a colon."""

_STATE, _PARENT, _GROUP, _THREADS, _VSIZE, _CODE, _ENV_START, _ENV_END = 0, 1, 2, 17, 20, 23, 47, 48
WHOLE_GROUP = 4
"""PIDFD_SIGNAL_PROCESS_GROUP of Linux 6.9."""
_USUAL = 1 << 16
_LOOKS = 3


def is_ours() -> bool:
    """Whether /proc exists, and belongs to this process's pid namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def namespace() -> str:
    """Return an id of this pid namespace; empty if /proc belongs to another one."""
    if is_ours():
        with suppress(OSError):
            return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return ""


def has_exited(namespace_of_it: str, pid: str) -> bool:
    """Whether a process, given by its namespace and its number, is certainly gone."""
    ours = namespace_of_it != "" and namespace_of_it == namespace()
    return ours and pid.isdigit() and not os.path.exists(f"/proc/{pid}")


def members(group: int) -> bool:
    """Whether a process group has a member that is not a zombie.

    Raises:
        OSError: The search is not possible: no descriptor is left, or /proc does not show this
            process.
    """
    stats = [stat for pid in _pids() if (stat := _stat(pid)) and stat[_GROUP] == b"%d" % group]
    return any(stat[_STATE] not in (b"Z", b"X") for stat in stats)


def _pids() -> list[int]:
    if not is_ours():
        raise FileNotFoundError(errno.ENOENT, "this process has no /proc of its own")
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(path: str) -> bytes | None:
    """Return the content of a file of /proc; empty if the process is gone, ``None`` without
    permission.
    """
    size = _USUAL
    try:
        with open(path, "rb", buffering=0) as file:
            # All at once: between two reads the process may become another program.
            while len(said := os.pread(file.fileno(), size, 0)) == size:
                size *= 8
            return said
    except (FileNotFoundError, ProcessLookupError):
        return b""
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None


def _stat(pid: int) -> list[bytes]:
    """Return the fields of a process from its state on, or nothing if it is gone."""
    return (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()


def _carries(pid: int, mark: bytes) -> bool | None:
    """Return whether a process has ``mark`` in its environment; ``None`` if it is just executing
    another program, and shows no environment.
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
        if fields[_STATE] == b"Z" and fields[_THREADS] != b"1":
            # Its first thread has exited, but others run.
            with suppress(FileNotFoundError, ProcessLookupError):
                threads = os.listdir(f"/proc/{pid}/task")
                paths = (f"/proc/{pid}/task/{thread}/environ" for thread in threads)
                return any(mark in (_read(path) or b"") for path in paths)
        if fields[_VSIZE] == b"0":  # a thread of the kernel's, or a zombie
            return False
        if fields[_CODE] == b"0":
            return None
        if fields[_ENV_START] == fields[_ENV_END]:
            return False
    return False  # it has removed its variables


def is_carried(mark: bytes) -> bool:
    """Whether another process carries ``mark`` in its environment, as far as it is visible."""
    own = os.getpid()
    try:
        return is_ours() and any(pid != own and _carries(pid, mark) for pid in _pids())
    except OSError:
        return True


def sweep(mark: bytes) -> Iterator[bool | None]:
    """Kill the processes that carry ``mark`` in their environment, one per step, and reap children
    of this process.

    A pidfd is opened for each process before its environment is read again, so that the signal
    cannot reach another process with its number.

    Yields:
        For each process whether it carried the mark; ``None`` if it is not known yet.

    Raises:
        OSError: The search is not possible.
    """
    own = os.getpid()
    for pid in _pids():
        found = False if pid == own else _carries(pid, mark)
        if found:
            _kill(pid, mark)
        yield found


def _kill(pid: int, mark: bytes) -> None:
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, AttributeError):
        return
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return  # without pidfds its exit is visible, but it cannot be signalled safely
    try:
        if _carries(pid, mark):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except OSError:
        pass  # it has exited, is another process's child, or may not be signalled
    finally:
        os.close(fd)


class Leader:
    """A grandchild that leads the work; a pidfd keeps its number unambiguous.

    Attributes:
        pidfd: Readable once it has exited.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pidfd = pidfd
        self._pid = pid

    @classmethod
    def find(cls, pid: int, parent: int) -> Leader | None:
        """Return the leader if ``pid`` is a child of ``parent``, as far as that is known."""
        try:
            leader = cls(pid, os.pidfd_open(pid))
        except (AttributeError, OSError):
            return None
        with suppress(OSError, IndexError):
            if is_ours() and int(_stat(pid)[_PARENT]) == parent:
                return leader
        leader.close()
        return None

    def signal_group(self, signum: int) -> None:
        """Signal the group that it leads; by number on older kernels.

        Raises:
            PermissionError: This process may not signal it.
        """
        with suppress(ProcessLookupError):
            try:
                signal.pidfd_send_signal(self.pidfd, signum, None, WHOLE_GROUP)
            except OSError as exc:
                if exc.errno not in (errno.EINVAL, errno.ENOSYS):
                    raise
                signal.pidfd_send_signal(self.pidfd, 0)  # it exists, so the number is still its own
                os.killpg(self._pid, signum)

    def kill(self) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> None:
        """Reap it once it has exited, if this process has become its parent."""
        with suppress(OSError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    def has_become_another(self) -> bool:
        """Whether a child of it executes another program than it does."""
        children = (_read(f"/proc/{self._pid}/task/{self._pid}/children") or b"").split()
        own = _read(f"/proc/{self._pid}/cmdline")
        return any(_read(f"/proc/{int(pid)}/cmdline") not in (b"", None, own) for pid in children)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
