"""Measure anyspawn beside what one would use instead: all in one run, in interleaved rounds, as ratios.

Each event loop is one process. In each round every peer takes its turn; a ratio is taken within a round, so that a
machine whose speed drifts does not favour anyone. Printed are the median ratio and its spread.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread

import anyspawn

KIB = bytes(range(256)) * 4
GIB = 2**30
Run = Callable[[list[str], bytes], Awaitable[bytes]]


async def by_anyspawn(argv: list[str], stdin: bytes) -> bytes:
    return (await anyspawn.spawn(argv, stdin=stdin, timeout=300, output_limit=2 * GIB, check=True)).stdout


async def by_run_process(argv: list[str], stdin: bytes) -> bytes:
    return (await anyio.run_process(argv, input=stdin)).stdout


async def by_asyncio(argv: list[str], stdin: bytes) -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    return (await process.communicate(stdin))[0]


async def by_trio(argv: list[str], stdin: bytes) -> bytes:
    import trio

    return (await trio.run_process(argv, stdin=stdin, capture_stdout=True, capture_stderr=True)).stdout


async def by_thread(argv: list[str], stdin: bytes) -> bytes:
    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, input=stdin, capture_output=True, check=True)

    return (await anyio.to_thread.run_sync(run)).stdout


def peers(loop: str) -> dict[str, Run]:
    """Return the peers on a loop; the first is what the others are measured against."""
    native = {"trio.run_process": by_trio} if loop == "trio" else {"asyncio + communicate": by_asyncio}
    return {
        "anyio.run_process": by_run_process,
        "anyspawn": by_anyspawn,
        **native,
        "subprocess.run in a thread": by_thread,
    }


async def sequential(run: Run, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        assert await run(["cat"], KIB) == KIB
    return (time.perf_counter() - began) / calls


async def in_flight(run: Run, calls: int, width: int = 32) -> float:
    left = calls

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            assert await run(["cat"], KIB) == KIB

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(width):
            tasks.start_soon(work)
    return (time.perf_counter() - began) / calls


async def gibibyte(run: Run, _: int) -> float:
    began = time.perf_counter()
    assert len(await run(["head", "-c", str(GIB), "/dev/zero"], b"")) == GIB
    return time.perf_counter() - began


CASES: dict[str, Callable[[Run, int], Awaitable[float]]] = {
    "sequential": sequential,
    "32 in flight": in_flight,
    "1 GiB of output": gibibyte,
}
TARGETS = {
    ("asyncio", "32 in flight"): 1.35,
    ("trio", "32 in flight"): 1.25,
    ("asyncio", "sequential"): 1 / 1.05,
    ("trio", "sequential"): 1 / 1.05,
    ("asyncio", "1 GiB of output"): 1.0,
    ("trio", "1 GiB of output"): 1.0,
}


async def measure(loop: str, case: str, rounds: int, calls: int) -> dict[str, list[float]]:
    """Return, for each peer, its seconds a call, round by round."""
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, run in peers(loop).items():
            gc.collect()
            seconds = await CASES[case](run, calls)
            if number:  # the first round warms up
                times.setdefault(name, []).append(seconds)
    return times


def report(loop: str, case: str, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows = []
    base, *_ = times.values()
    for name, seconds in times.items():
        ratios = [one / other for one, other in zip(base, seconds, strict=True)]
        speed = statistics.median(ratios)
        row = {
            "loop": loop,
            "case": case,
            "peer": name,
            "ms": statistics.median(seconds) * 1000,
            "speed": speed,
            "least": min(ratios),
            "most": max(ratios),
        }
        target = TARGETS.get((loop, case)) if name == "anyspawn" else None
        mark = "" if target is None else f"  target {target:.2f}: {'met' if speed >= target else 'NOT met'}"
        spread = f"({row['least']:.2f} .. {row['most']:.2f})"
        print(f"{loop:<8} {case:<16} {name:<27} {row['ms']:>9.3f} ms  {speed:>5.2f} {spread}{mark}", flush=True)
        rows.append(row)
    return rows


def run_loop(loop: str, rounds: int, calls: int) -> list[dict[str, Any]]:
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    backend = "trio" if loop == "trio" else "asyncio"
    rows = []
    for case in CASES:
        measured = functools.partial(measure, loop, case, min(rounds, 5) if "GiB" in case else rounds, calls)
        rows += report(loop, case, anyio.run(measured, backend=backend, backend_options=options))
    return rows


def import_time(rounds: int) -> dict[str, Any]:
    """Return what `import anyspawn` takes over its two dependencies, in ms, in fresh interpreters."""
    code = "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1000)"
    extra = []
    for _ in range(rounds + 1):
        both = [
            float(subprocess.run([sys.executable, "-c", code.format(names)], capture_output=True, check=True).stdout)
            for names in ("anyio, attrs", "anyio, attrs, anyspawn")
        ]
        extra.append(both[1] - both[0])
    middle = statistics.median(extra[1:])
    print(f"import anyspawn over anyio and attrs: {middle:.1f} ms  target 15: {'met' if middle <= 15 else 'NOT met'}")
    return {"case": "import", "ms": middle, "least": min(extra[1:]), "most": max(extra[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=200, help="calls in each round of the small cases")
    parser.add_argument("--loops", nargs="*", default=["asyncio", "uvloop", "trio"])
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        rows = run_loop(given.one, given.rounds, given.calls)
    else:
        print("speed: how many times as fast as anyio.run_process on the same loop; median (least .. most) of rounds")
        rows = [import_time(given.rounds)]
        for loop in given.loops:
            with tempfile.NamedTemporaryFile() as file:
                more = ["--rounds", str(given.rounds), "--calls", str(given.calls), "--json", file.name]
                subprocess.run([sys.executable, __file__, "--one", loop, *more], check=True)
                rows += json.load(file)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
