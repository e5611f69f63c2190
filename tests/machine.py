"""Queries of the tests to the machine: running processes, open descriptors. They read Linux's
/proc; elsewhere nothing is known.
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
"""A variable that every program of a test inherits, so that what a test leaves behind is found."""


def processes_with(text: str) -> list[int]:
    """Return the processes that have ``text`` in their environment, except this one."""
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
    """Kill processes, some of which may be gone by then."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def rss() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def take_host_name(name: str) -> bool:
    """Give this process and its children a host name, by which what they make tells its owner;
    return whether that can be done.
    """
    try:
        os.unshare(os.CLONE_NEWUTS)
        socket.sethostname(name)
    except (AttributeError, OSError):  # AttributeError: Python 3.11
        return False
    return True


def alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    return _stat(pid)[:1] not in ("Z", "X", "")


def eventually(check, seconds: float = 10.0, looks: int = 10):
    """Call ``check`` until what it returns is empty or false, and return the last answer.

    It is called so often at least, as a single look can take a busy machine all of the time.
    """
    end = time.monotonic() + seconds
    while (answer := check()) and (looks > 0 or time.monotonic() < end):
        looks -= 1
        time.sleep(0.005)
    return answer


def settled_below(host: int) -> list[int]:
    """Return what a host's calls have started, once all of it waits for something.

    bwrap asks to be ended with its parent only when it has nothing else to do any more.
    """
    found = [pid for pid in processes_with("ANYSPAWN_ID=") if _below(pid, host)]
    assert not eventually(lambda: [pid for pid in found if _stat(pid)[:1] not in ("S", "")])
    return found


def _stat(pid: int) -> str:
    """Return what stands behind the name in a process's line: its state first, then its parent."""
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
    """Whether this machine has bwrap and lets us use it."""
    try:
        return (
            subprocess.run(
                ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], check=False
            ).returncode
            == 0
        )
    except FileNotFoundError:
        return False
