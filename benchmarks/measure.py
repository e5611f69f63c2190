"""All peers of a place on one loop, in turns, in one process."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from attrs import asdict, frozen

from benchmarks.cases import (
    Cell,
    WrongOutputError,
    in_flight,
    large,
    once,
    repeated,
    rested,
    small,
    why,
)
from benchmarks.peer import Call, Loop, NotHereError, Peer, Place, T, Target


@frozen(kw_only=True)
class Settings:
    """How long and how often.

    Args:
        rounds: At most so many rounds; fewer where a place's budget is used up.
        seconds: How long calls are kept in flight, for each peer, width and round.
        share: How much of each place's budget there is.
        widths: Only these numbers of calls in flight. Default: the place's.
        output: Only so many bytes of large output. Default: the place's.
        loops: Only these event loops. Default: the place's.
        probes: Which cases of memory and behaviour, each in a process of its own.
    """

    rounds: int = 5
    seconds: float = 0.7
    share: float = 1.0
    widths: tuple[int, ...] = ()
    output: int | None = None
    loops: tuple[Loop, ...] = ()
    probes: tuple[str, ...] = ("timeout", "held", "killed", "flight", "output")


QUICK = Settings(
    rounds=1,
    seconds=0.2,
    share=0.1,
    widths=(1, 16, 32),
    output=16 * 2**20,
    loops=("asyncio",),
    probes=("timeout", "held"),
)
TINY = Settings(rounds=1, seconds=0.02, widths=(1, 4), output=2**20, probes=("held",))


@frozen(kw_only=True)
class Case:
    """What is measured of every peer in each round."""

    name: str
    run: Callable[[Peer, Call], Awaitable[Cell]]


async def _flight(width: int, seconds: float, peer: Peer, call: Call) -> Cell:
    return await in_flight(call, small(peer), width, seconds)


async def _output(size: int, _: Peer, call: Call) -> Cell:
    return await in_flight(call, large(size), 1, 0)


async def _rested(turns: int, calls: int, rest: float, peer: Peer, call: Call) -> Cell:
    return await rested(call, small(peer), turns, calls, rest)


async def _write(size: int, seconds: float, _: Peer, box: Any) -> Cell:
    data = bytes(size)
    return await repeated(lambda: box.write(f"file-{size}", data), seconds)


async def _read(size: int, seconds: float, _: Peer, box: Any) -> Cell:
    async def read() -> None:
        found = len(await box.read(f"file-{size}"))
        if found != size:
            raise WrongOutputError(f"{found} bytes came back instead of {size}")

    return await repeated(read, seconds)


async def _life(target: Target, peer: Peer, _: Call) -> Cell:
    async def live() -> None:
        async with peer.connect(target):
            pass

    return await repeated(live, 0)


def cases(place: Place, settings: Settings, target: Target) -> list[Case]:
    """Return what is measured of every peer in a place."""
    widths = [width for width in place.widths if not settings.widths or width in settings.widths]
    found = [
        Case(name=str(width), run=partial(_flight, width, settings.seconds)) for width in widths
    ]
    if place.rest and not settings.widths:
        found.append(Case(name="apart", run=partial(_rested, 2, 1, place.rest)))
        found.append(Case(name="burst", run=partial(_rested, 1, 5, place.rest)))
    if place.output:
        size = place.output if settings.output is None else settings.output
        found.append(Case(name="output", run=partial(_output, size)))
    for size in place.files:
        shown = size if settings.output is None else min(size, settings.output)
        found.append(Case(name=f"write {size}", run=partial(_write, shown, settings.seconds)))
        found.append(Case(name=f"read {size}", run=partial(_read, shown, settings.seconds)))
    if place.files:
        found.append(Case(name="life", run=partial(_life, target)))
    return found


async def measure(place: Place, loop: Loop, target: Target, settings: Settings) -> dict[str, Any]:
    """Return what each peer did in each round, as plain data, and which peers could not be
    measured.
    """
    missing: dict[str, str] = {}
    cells: dict[tuple[str, str], list[Cell]] = {}
    budget = place.budget * settings.share * (1 if loop == place.loops[0] else 1 / 3)
    async with contextlib.AsyncExitStack() as stack:
        ready: list[tuple[Peer, Call, float]] = []
        for peer in place.peers:
            if loop not in peer.loops:
                continue
            try:
                call = await stack.enter_async_context(peer.connect(target))
                ready.append((peer, call, await warm(peer, call, place.slow)))
            except Exception as error:
                missing[peer.name] = reason(error)
        began = time.perf_counter()
        for number in range(settings.rounds):
            if number and time.perf_counter() - began > budget:
                break
            for case in cases(place, settings, target):
                for peer, call, took in _turns(ready, number):
                    done = cells.setdefault((peer.name, case.name), [])
                    slow = took > place.slow and (number or case.name != "1")
                    if not slow and not (done and done[-1].failed):
                        gc.collect()
                        done.append(await case.run(peer, call))
                        await anyio.sleep(peer.settle)
    rows = [_row(name, case, done) for (name, case), done in cells.items() if done]
    _compare(rows)
    for row in rows:
        row["loop"] = loop
    return {"rows": rows, "missing": missing, "settings": asdict(settings)}


def _turns(ready: list[T], number: int) -> list[T]:
    """Return the order of a round: each round begins with another peer."""
    first = number % len(ready) if ready else 0
    return ready[first:] + ready[:first]


async def warm(peer: Peer, call: Call, slow: float) -> float:
    """Return what a call takes after everything was loaded; of a slow peer, what the first one
    took.
    """
    took = await attempt(peer, call)
    return took if took > slow else await attempt(peer, call)


async def attempt(peer: Peer, call: Call, tries: int = 5) -> float:
    """Return what a call takes; a peer that loses output is given a few tries."""
    for _ in range(tries - 1):
        with contextlib.suppress(WrongOutputError):
            return await once(call, small(peer), timeout=30)
    return await once(call, small(peer), timeout=30)


def reason(error: BaseException) -> str:
    """Return why a peer could not be measured."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed (no module {error.name})"
    return str(error) if isinstance(error, NotHereError) else why(error)


def _row(peer: str, case: str, done: list[Cell]) -> dict[str, Any]:
    row: dict[str, Any] = {"peer": peer, "case": case}
    if done[-1].failed:
        return row | {"failed": done[-1].failed}
    took = sorted(seconds for cell in done for seconds in cell.took)
    return row | {
        "rounds": [round(cell.rate, 4) for cell in done],
        "calls": len(took),
        "p50": statistics.median(took),
        "p99": took[min(len(took) - 1, int(len(took) * 0.99))],
    }


def _compare(rows: list[dict[str, Any]]) -> None:
    """Say in each row how many times as fast it is as the first peer, by the ratios within the
    rounds.
    """
    first: dict[str, list[float]] = {}
    for row in rows:
        if "rounds" in row:
            base = first.setdefault(
                row["case"], row["rounds"] if row["peer"] == rows[0]["peer"] else []
            )
            ratios = [own / other for own, other in zip(row["rounds"], base, strict=False)]
            if ratios:
                row["ratio"] = [statistics.median(ratios), min(ratios), max(ratios)]


def run(place: Place, loop: Loop, target: Target, settings: Settings) -> dict[str, Any]:
    """Measure in a new event loop."""
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    return anyio.run(
        measure, place, loop, target, settings, backend=backend(loop), backend_options=options
    )


def backend(loop: Loop) -> str:
    return "trio" if loop == "trio" else "asyncio"
