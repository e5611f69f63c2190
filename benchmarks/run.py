"""Starts the processes that measure and probe, counts what programs leave behind, and removes what
a run has made.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from benchmarks import machine
from benchmarks.measure import Settings
from benchmarks.peer import Loop, NotHereError, Peer, Place, Target
from benchmarks.probe import HELD, SETTLE

ROOT = Path(__file__).parents[1]

PROCESSES = 3
"""So many sleeping processes has the program of a probe whose call is to end early."""

_START, _BEYOND = 60.0, 5.0
"""So long a program may take to be seen, and so many seconds after its timeout a call is said not
to return.
"""


def run_place(place: Place, settings: Settings, run: str) -> dict[str, Any]:
    """Return all that was seen in a place, or why nothing was."""
    found: dict[str, Any] = {"rows": [], "missing": {}, "probes": {}, "settings": asdict(settings)}
    with contextlib.ExitStack() as stack:
        stack.callback(_clean, place, run)
        try:
            target = stack.enter_context(place.start(run))
        except NotHereError as error:
            return {"missing": {place.title: str(error)}}
        for loop in place.loops:
            if not settings.loops or loop in settings.loops:
                print(f"{place.name}, {loop} ...", flush=True)
                seen = _measure(place, loop, target, settings)
                found["rows"] += seen["rows"]
                found["missing"] |= seen["missing"]
        if settings.probes:
            print(f"{place.name}, memory and behaviour ...", flush=True)
            found["probes"] = _probe_all(place, target, settings, found["missing"])
    return found


def _clean(place: Place, run: str) -> None:
    with contextlib.suppress(NotHereError):
        place.clean(run)


@frozen
class Child:
    """A process at work."""

    process: subprocess.Popen[bytes]
    answer: Path

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """Return what it reports within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if self.answer.exists():
                return dict(json.loads(self.answer.read_text()))
            if ended:
                return {"missing": f"its process ended with status {self.process.returncode}"}
            time.sleep(0.02)
        return None


@contextlib.contextmanager
def child(**order: Any) -> Iterator[Child]:
    """Start a process with an order, and end it and all that it started on the host."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "said", "wb") as said:
        file = Path(folder) / "order.json"
        file.write_text(json.dumps(order))
        argv = [sys.executable, "-m", "benchmarks.child", str(file)]
        process = subprocess.Popen(argv, start_new_session=True, stdout=said, stderr=said, cwd=ROOT)
        try:
            yield Child(process, file.with_suffix(".out"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _measure(place: Place, loop: Loop, target: Target, settings: Settings) -> dict[str, Any]:
    order = {
        "place": place.name,
        "loop": loop,
        "target": asdict(target),
        "settings": asdict(settings),
    }
    longest = 4 * place.budget * settings.share + 300
    with child(**order) as process:
        seen = process.wait(longest) or {"missing": f"it had not ended after {longest:.0f} s"}
    return (
        seen
        if "rows" in seen
        else {"rows": [], "missing": {f"{place.title}, {loop}": seen["missing"]}}
    )


def _probe_all(
    place: Place, target: Target, settings: Settings, missing: dict[str, str]
) -> dict[str, Any]:
    """Return what each peer's probes saw, by peer and case; none depends on speed, so a few run at
    once.
    """
    peers = [peer for peer in place.peers if peer.name not in missing]
    cases = [
        case
        for case in settings.probes
        if (case != "output" or place.output) and (case != "flight" or place.widths != (1,))
    ]
    pairs = [(case, peer) for case in cases for peer in peers]
    probes: dict[str, Any] = {peer.name: {} for peer in peers}
    with ThreadPoolExecutor(4) as threads:
        seen = threads.map(lambda pair: _probe(pair[0], place, pair[1], target), pairs)
        for (case, peer), found in zip(pairs, seen, strict=True):
            probes[peer.name][case] = found
    return probes


def _probe(case: str, place: Place, peer: Peer, target: Target) -> dict[str, Any]:
    seconds = random.randrange(10**6, 10**7)
    loop = "asyncio" if "asyncio" in peer.loops else peer.loops[0]
    order = {"place": place.name, "peer": peer.name, "loop": loop, "target": asdict(target)}
    try:
        with child(**order, probe=case, seconds=seconds) as process:
            if case == "killed":
                return _killed(process, seconds)
            _seen(process, seconds, 1)
            limit = {"held": max(HELD, place.patience), "timeout": place.patience}.get(case, _START)
            found = process.wait(limit + _BEYOND) or {"outcome": "did not return"}
            if "outcome" in found:
                time.sleep(SETTLE)
                found["left"] = len(machine.sleepers(seconds))
            return found
    finally:
        for pid in machine.sleepers(seconds):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _seen(process: Child, seconds: int, many: int) -> bool:
    """Wait until so many of the program's processes are seen, and return whether they were."""
    end = time.monotonic() + _START
    while len(machine.sleepers(seconds)) < many:
        if time.monotonic() > end or process.process.poll() is not None or process.answer.exists():
            return False
        time.sleep(0.05)
    return True


def _killed(process: Child, seconds: int) -> dict[str, Any]:
    """Kill a caller whose program runs, and return how much of that is left."""
    if not _seen(process, seconds, PROCESSES):
        return process.wait(1) or {"missing": "the program's processes cannot be seen from here"}
    process.process.kill()
    end = time.monotonic() + 5
    while (left := len(machine.sleepers(seconds))) and time.monotonic() < end:
        time.sleep(0.05)
    return {"left": left}


def import_time(rounds: int) -> dict[str, float]:
    """Return what `import anyspawn` takes over its two dependencies, in ms, in fresh
    interpreters.
    """
    code = (
        "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1000)"
    )
    env = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }  # once is enough
    extra = []
    for _ in range(rounds + 1):
        both = []
        for names in ("anyio, attrs", "anyio, attrs, anyspawn"):
            argv = [sys.executable, "-c", code.format(names)]
            both.append(
                float(subprocess.run(argv, capture_output=True, check=True, env=env).stdout)
            )
        extra.append(both[1] - both[0])
    return {"ms": statistics.median(extra[1:]), "least": min(extra[1:]), "most": max(extra[1:])}
