"""Queries to this machine: memory, processes, names and versions. They read Linux's /proc;
elsewhere nothing is known.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Self

PEERS = (
    *(
        "anyio",
        "trio",
        "uvloop",
        "inspect-ai",
        "docker",
        "aiodocker",
        "python-on-whales",
        "llm-sandbox",
        "deepagents",
        "deepagents-docker",
    ),
    *("kubernetes", "kubernetes-asyncio", "kr8s"),
)


def about() -> dict[str, Any]:
    """Return what the figures were seen on."""
    versions = {}
    for name in ("anyspawn", *PEERS):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "day": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "docker": _answer("docker", "version", "--format", "{{.Server.Version}}"),
        "kubernetes": _answer(
            "kubectl", "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.kubeletVersion}"
        ),
        "versions": versions,
    }


def _answer(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def sleepers(seconds: int) -> list[int]:
    """Return the processes, in containers too, that are `sleep SECONDS`."""
    found, number = [], str(seconds).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if len(words) == 3 and words[0].endswith(b"sleep") and words[1] == number:
                found.append(int(entry.name))
    return found


def children(pid: int | str = "self") -> list[int]:
    """Return a process's children, zombies included."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def rss(pid: int | str = "self") -> int:
    """Return a process's resident memory in bytes."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def tree_rss() -> int:
    """Return the resident memory of this process and all below it."""
    total, waiting = rss(), children()
    while waiting:
        pid = waiting.pop()
        total += rss(pid)
        waiting += children(pid)
    return total


class Peak:
    """Watches the memory of this process and all below it; ``bytes`` is the most that was seen."""

    def __init__(self, pause: float = 0.01) -> None:
        self.bytes = 0
        self._pause, self._over = pause, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(self._pause):
            self.bytes = max(self.bytes, tree_rss())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.bytes = max(self.bytes, tree_rss())
