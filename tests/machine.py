"""Queries of the tests to the machine: running processes and open descriptors. They read Linux's
/proc; elsewhere they find nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from anyspawn.testing._machine import children, open_fds

__all__ = [
    "MARK",
    "alive",
    "bubblewrap_works",
    "children",
    "eventually",
    "kill_all",
    "open_fds",
    "processes_with",
    "rss",
    "settled_below",
    "take_host_name",
]

MARK = "ANYSPAWN_TEST"
"""Every program of a test inherits this variable, so that its leftovers are found."""


def processes_with(text: str) -> list[int]:
    """Return the processes whose environment contains ``text``, except this one."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb", buffering=0) as environ:
                    if text.encode() in environ.read():
                        found.append(int(name))
            except OSError:
                continue
    return found


def kill_all(pids) -> None:
    """Kill processes, some of which may already be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def rss() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def take_host_name(name: str) -> bool:
    """Give this process and its children a host name, which identifies the owner of what they make.
    Return whether that worked.
    """
    try:
        os.unshare(os.CLONE_NEWUTS)
        socket.sethostname(name)
    except (AttributeError, OSError):  # AttributeError: Python 3.11
        return False
    return True


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    return _stat(pid)[:1] not in ("Z", "X", "")


def eventually(check, seconds: float = 10.0, looks: int = 10):
    """Call ``check`` until its result is empty or false, and return the last result. Call it at
    least ``looks`` times, because on a busy machine a single call can take all the time.
    """
    end = time.monotonic() + seconds
    while (answer := check()) and (looks > 0 or time.monotonic() < end):
        looks -= 1
        time.sleep(0.005)
    return answer


def settled_below(host: int) -> list[int]:
    """Return the processes that a host's calls have started, once all of them wait. bwrap asks to
    be killed with its parent only at the end of its set-up.
    """
    found = [pid for pid in processes_with("ANYSPAWN_ID=") if _below(pid, host)]
    assert not eventually(lambda: [pid for pid in found if _stat(pid)[:1] not in ("S", "")])
    return found


def _stat(pid: int) -> str:
    """Return the part of a process's stat line after its name: first its state, then its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        pid = int((_stat(pid).split() or ["", "0"])[1])
        if pid == ancestor:
            return True
    return False


def bubblewrap_works() -> bool:
    """Whether this machine has bwrap and allows us to use it."""
    try:
        return (
            subprocess.run(
                ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], check=False
            ).returncode
            == 0
        )
    except FileNotFoundError:
        return False
