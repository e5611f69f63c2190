"""Thousands of calls of every kind at every sandbox, and a look at whether anything grows: ``python
-m benchmarks.soak``.

Calls are made in batches. Between two batches nothing is in flight, and what this process holds is
counted. At the end everything is closed and counted again. Exit status 1: something grew, was left,
or a call ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
from attrs import asdict, define, field, frozen

from benchmarks import containers, machine, pods
from benchmarks.mixture import KINDS, WAYS, Kind, Way, perform
from benchmarks.peer import EVERY_LOOP, Loop, NotHereError, Target, not_yet
from benchmarks.run import ROOT
from benchmarks.soak_report import LABELS, plot, render

IN_FLIGHT, BATCHES = 16, 40
RSS_SLACK = 4 * 2**20
"""By so many bytes the memory may differ, in the median, between a run's second and last quarter.
"""

SETTLES = 15.0
"""Seconds within which programs leave the process table, and trio ends its idle threads (10 s)."""

Sample = dict[str, float]


@frozen(kw_only=True)
class Plan:
    """What one process is to do.

    Args:
        loop: The event loop.
        calls: How many calls.
        seed: What the mixture is drawn by.
        sleep: The number of seconds by which the run's programs are known.
        targets: Where programs can run, by the place's name.
    """

    loop: Loop
    calls: int
    seed: int
    sleep: int
    targets: dict[str, Target] = field(repr=False)


@define
class Seen:
    """What came of it."""

    samples: list[Sample] = field(factory=list)
    calls: Counter[str] = field(factory=Counter)
    wrong: Counter[str] = field(factory=Counter)
    missing: dict[str, str] = field(factory=dict)
    final: Sample = field(factory=dict)
    """What was there when everything was closed."""


def count(plan: Plan, calls: int) -> Sample:
    """Return what is there now."""
    gc.collect()
    return {
        "calls": calls,
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": len(machine.children()),
        "programs": len(machine.sleepers(plan.sleep)),
        "containers": _containers(plan),
        "pods": _pods(plan),
        "rss_mib": round(machine.rss() / 2**20, 2),
    }


def _containers(plan: Plan) -> int:
    target = plan.targets.get("docker_run")
    found = (
        containers.docker("ps", "-aq", "--filter", f"label={containers.label(target)}")
        if target
        else ""
    )
    return len(found.split())


def _pods(plan: Plan) -> int:
    target = plan.targets.get("kubectl_run")
    if target is None:
        return 0
    form = "jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{'\\n'}{end}"
    lines = pods.kubectl("-n", target.namespace, "get", "pods", "-o", form).splitlines()
    return len([line for line in lines if len(line.split()) == 1])


def settled(plan: Plan, calls: int, threads: float = math.inf) -> Sample:
    """Return what is there, once the programs that calls have ended are gone from the process
    table.

    Args:
        threads: Wait until no more threads than this are left: trio keeps an idle one for a while.
    """
    end = time.monotonic() + SETTLES
    while time.monotonic() < end and (
        machine.sleepers(plan.sleep) or threading.active_count() > threads
    ):
        time.sleep(0.05)
    return count(plan, calls)


async def batches(plan: Plan, seen: Seen) -> None:
    """Make all calls, and count after each batch."""
    rng = random.Random(plan.seed)
    async with contextlib.AsyncExitStack() as stack:
        ways = []
        for way in WAYS:
            if way.place in plan.targets:
                try:
                    ways.append(
                        (way, await stack.enter_async_context(way.open(plan.targets[way.place])))
                    )
                except TypeError as error:
                    seen.missing[way.name] = not_yet(error)
        shares = [way.share for way, _ in ways]

        async def work(many: list[None]) -> None:
            while many:
                many.pop()
                (way, sandbox), kind = (
                    rng.choices(ways, shares)[0],
                    rng.choices(KINDS, [kind.share for kind in KINDS])[0],
                )
                await one(way, kind, sandbox)

        async def one(way: Way, kind: Kind, sandbox: Any) -> None:
            outcome = await perform(kind, sandbox, plan.sleep, rng)
            seen.calls[f"{way.name}: {kind.name}"] += 1
            if outcome not in kind.ends:
                seen.wrong[f"{way.name}: {kind.name}: {outcome}"] += 1

        size, done = max(1, plan.calls // BATCHES), 0
        while done < plan.calls:
            many: list[None] = [None] * min(size, plan.calls - done)
            done += len(many)
            async with anyio.create_task_group() as tasks:
                for _ in range(IN_FLIGHT):
                    tasks.start_soon(work, many)
            seen.samples.append(settled(plan, done))


def judge(seen: Seen, before: Sample) -> list[str]:
    """Return what is not as it should be."""
    problems = [f"{name}: {many} calls" for name, many in sorted(seen.wrong.items())]
    quarter = max(1, len(seen.samples) // 4)
    early, late = seen.samples[quarter : 2 * quarter] or seen.samples, seen.samples[-quarter:]
    for name, words in LABELS.items():
        if name == "rss_mib":
            first, last = _median(early, name), _median(late, name)
            if (last - first) * 2**20 > RSS_SLACK:
                problems.append(f"{words}: from {first:g} to {last:g}")
            continue
        first, last = (
            max(sample[name] for sample in seen.samples[: 2 * quarter]),
            min(sample[name] for sample in late),
        )
        if last > first:
            problems.append(
                f"{words}: from at most {first:g} in the first half to at least {last:g} in the last quarter"
            )
        if seen.final[name] > before[name]:
            problems.append(
                f"{words}: {seen.final[name]:g} after everything was closed, {before[name]:g} before"
            )
    return problems


def _median(samples: list[Sample], name: str) -> float:
    found = sorted(sample[name] for sample in samples)
    return found[len(found) // 2]


def run_loop(plan: Plan) -> dict[str, Any]:
    """Make the calls of one process, and return what came of it as plain data."""
    seen = Seen()
    options = {"use_uvloop": True} if plan.loop == "uvloop" else {}
    how: dict[str, Any] = {
        "backend": "trio" if plan.loop == "trio" else "asyncio",
        "backend_options": options,
    }
    anyio.run(anyio.sleep, 0, **how)  # what a loop opens once for the life of a process
    before = count(plan, 0)
    anyio.run(batches, plan, seen, **how)
    seen.final = settled(plan, plan.calls, before["threads"])
    return asdict(seen) | {"before": before, "problems": judge(seen, before)}


def run_all(calls: int, loops: tuple[Loop, ...], only: list[str], seed: int) -> dict[str, Any]:
    """Share the calls among processes, one for each loop, and remove what they leave in any
    case.
    """
    began, run, sleep = time.monotonic(), uuid.uuid4().hex[:8], random.randrange(10**6, 10**7)
    found: dict[str, Any] = {
        "about": machine.about(),
        "seed": seed,
        "calls": calls,
        "missing": {},
        "loops": {},
    }
    with contextlib.ExitStack() as stack:
        stack.callback(_kill_sleepers, sleep)
        targets = {"local": Target(run=run)}
        for place in (containers.EXEC, containers.RUN, pods.EXEC, pods.RUN):
            if only and place.name not in only:
                continue
            stack.callback(_clean, place.clean, run)
            try:
                targets[place.name] = _start(stack, place, run, targets)
            except NotHereError as error:
                found["missing"][place.title] = str(error)
        for number, loop in enumerate(loops):
            print(f"{loop} ...", flush=True)
            plan = Plan(
                loop=loop,
                calls=calls // len(loops),
                seed=seed + number,
                sleep=sleep,
                targets=targets,
            )
            found["loops"][loop] = _in_process(plan)
    found["minutes"] = (time.monotonic() - began) / 60
    return found


def _start(stack: contextlib.ExitStack, place: Any, run: str, targets: dict[str, Target]) -> Target:
    if place is pods.RUN and "kubectl_exec" in targets:  # its namespace is there
        return Target(run=run, name=pods.IMAGE, namespace=targets["kubectl_exec"].namespace)
    return stack.enter_context(place.start(run))  # type: ignore[no-any-return]


def _clean(clean: Any, run: str) -> None:
    with contextlib.suppress(NotHereError):
        clean(run)


def _kill_sleepers(sleep: int) -> None:
    for pid in machine.sleepers(sleep):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _in_process(plan: Plan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        order, answer = Path(folder, "order.json"), Path(folder, "answer.json")
        order.write_text(json.dumps(asdict(plan)))
        argv = [sys.executable, "-m", "benchmarks.soak", "--order", str(order), str(answer)]
        with _ended(subprocess.Popen(argv, start_new_session=True, cwd=ROOT)) as process:
            status = process.wait()
        return (
            dict(json.loads(answer.read_text()))
            if answer.exists()
            else {"problems": [f"its process ended: {status}"]}
        )


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="of all loops together")
    parser.add_argument("--loops", nargs="+", choices=EVERY_LOOP, default=["asyncio", "trio"])
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="local is always there; docker_exec, ...",
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the folder of the page")
    parser.add_argument("--hooks", action="store_true", help="turns that hooks guard, instead")
    parser.add_argument("--minutes", type=float, default=10.0, help="with --hooks: for how long")
    parser.add_argument("--order", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.order:
        order = json.loads(given.order[0].read_text())
        order["targets"] = {name: Target(**target) for name, target in order["targets"].items()}
        given.order[1].write_text(json.dumps(run_loop(Plan(**order))))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seed = random.randrange(10**6) if given.seed is None else given.seed
    if given.hooks:
        from benchmarks import soak_hooks  # it stands on this module

        return soak_hooks.main(tuple(given.loops), given.minutes, seed)
    found = run_all(given.calls, tuple(given.loops), given.only, seed)
    (given.out / "benchmarks").mkdir(parents=True, exist_ok=True)
    (given.out / "benchmarks" / "soak.svg").write_text(plot(found))
    (given.out / "soak.md").write_text(render(found))
    problems = [
        f"{loop}: {problem}"
        for loop, seen in found["loops"].items()
        for problem in seen["problems"]
    ]
    print("\n".join(problems) or "nothing grew and nothing was left")
    print(f"{given.out / 'soak.md'}, {found['minutes']:.1f} minutes")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
