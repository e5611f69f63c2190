"""The kit's view of the machine: processes, descriptors, command lines.

It reads Linux's /proc. Elsewhere it sees nothing, and the kit cannot verify the claims of an
outcome.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anyspawn._spawn.proc import is_ours

__all__ = ["all_command_lines", "children", "command_lines", "gone", "open_fds", "survivors"]


def survivors(mark: str) -> list[int]:
    """Return the processes with ``mark`` in their variables or arguments, except this one."""
    word = mark.encode()
    found = {pid for pid, said in _said_of_each("environ") if word in said}
    found |= {pid for pid, argv in command_lines().items() if word in argv}
    return sorted(found - {os.getpid()})


def command_lines() -> dict[int, list[bytes]]:
    """Return the argv of every process of this host by pid, including those in containers."""
    return {pid: said.split(b"\0") for pid, said in _said_of_each("cmdline")}


def _said_of_each(file: str) -> Iterator[tuple[int, bytes]]:
    for name in os.listdir("/proc") if is_ours() else ():
        if name.isdigit():
            with suppress(OSError):  # it has exited, or belongs to another user
                yield int(name), Path(f"/proc/{name}/{file}").read_bytes()


@contextmanager
def all_command_lines() -> Iterator[list[list[bytes]]]:
    """Return a list that collects every argv of this host until the block ends."""
    seen: list[list[bytes]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.is_set():
            seen.extend(command_lines().values())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def children() -> list[int]:
    """Return this process's children, zombies included."""
    found = []
    for task in Path("/proc/self/task").iterdir() if is_ours() else ():
        with suppress(OSError):  # a thread that has ended hands its children to another one
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def open_fds() -> dict[str, str]:
    """Return this process's open descriptors and what they are."""
    found = {}
    for entry in os.listdir("/dev/fd"):
        with suppress(OSError):
            found[entry] = os.readlink(f"/dev/fd/{entry}") if is_ours() else entry
    return found


def gone(look: Callable[[], object], seconds: float = 10.0) -> bool:
    """Look until nothing is left, or the time is up; return whether nothing is left."""
    end = time.monotonic() + seconds
    while look():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
