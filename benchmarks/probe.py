"""One peer in a separate process: its memory, and its behaviour when a program misbehaves."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import anyio

from benchmarks.cases import in_flight, large, parent, small, stubborn, why
from benchmarks.machine import Peak
from benchmarks.measure import attempt, backend, reason
from benchmarks.peer import Call, Loop, Peer, Place, Target

MEMORY_FLIGHT = 16
MEMORY_SECONDS = 1.5
SETTLE = 1.0
"""How long after a call what is left of it is counted."""

HELD = 4.0
"""The timeout of the call whose program leaves a child that holds its stdout."""


Report = Callable[[dict[str, Any]], None]


async def probe(
    case: str, place: Place, peer: Peer, target: Target, seconds: int, report: Report
) -> None:
    """Report what was seen, as plain data; ``seconds`` is the number by which the program's
    processes are known.
    """
    try:
        async with peer.connect(target) as call:
            await attempt(peer, call)
            if case in {"flight", "output"}:
                report(await _memory(case, place, peer, call))
                return
            program = parent(seconds) if case == "held" else stubborn(seconds)
            timeout = {"held": max(HELD, place.patience), "killed": 300.0}
            report(await _outcome(call, program.argv, timeout.get(case, place.patience)))
            await anyio.sleep(2 * SETTLE)  # what it left behind is counted while it is still open
    except Exception as error:
        report({"missing": reason(error)})


async def _outcome(call: Call, argv: tuple[str, ...], timeout: float) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        out: Any = await call(argv, b"", timeout)
        outcome = "returned " + (bytes(out).decode() if not isinstance(out, str) else out).strip()
    except Exception as error:
        name = type(error).__name__
        outcome = name if "Timeout" in name else why(error)
    return {"outcome": outcome, "seconds": time.perf_counter() - began}


async def _memory(case: str, place: Place, peer: Peer, call: Call) -> dict[str, Any]:
    with Peak() as peak:
        if case == "output":
            cell = await in_flight(call, large(min(place.output, 64 * 2**20)), 1, 0)
        else:
            cell = await in_flight(call, small(peer), MEMORY_FLIGHT, MEMORY_SECONDS)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"missing": cell.failed} if cell.failed else {"bytes": max(peak.bytes, own)}


def run(
    case: str, place: Place, peer: Peer, loop: Loop, target: Target, seconds: int, report: Report
) -> None:
    """Probe in a new event loop."""
    anyio.run(probe, case, place, peer, target, seconds, report, backend=backend(loop))
