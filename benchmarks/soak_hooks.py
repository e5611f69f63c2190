"""Turns of an agent that five hooks guard, 200 at once, with hooks of every hostile kind; and a
look at whether anything grows, and whether anything was allowed that a hook had not: ``python -m
benchmarks.soak --hooks``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from typing import Any

import anyio
import attrs
from attrs import define, field

from anyspawn.hooks import ExecHook, ExecToolHook, HookRunner
from benchmarks import soak
from benchmarks.peer import Loop

TURNS, EACH = 200, 5
TIMEOUT = 30.0
"""Seconds for a hook that answers: 200 turns wait for 64 places."""
BRIEF = 1.0
ENOUGH = 16
"""Batches below which growth cannot be told from chance: servers that die and are started again,
threads that trio keeps for a while.
"""
BOUND = 2 * TIMEOUT + 30
"""Seconds within which a turn has its decision, whatever its hooks do."""

ALLOW = '{"allow": true}'
SERVER = """
import json, os, random, sys, time
for line in sys.stdin:
    call = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"allow": True}}
    text = json.dumps(answer)
    %s
    print(text, flush=True)
"""


@define
class Guard:
    """A hook of the mixture.

    Args:
        hook: The hook.
        allows: Whether it may allow: what cannot must never be overruled.
    """

    hook: ExecHook
    allows: bool = field(kw_only=True)


def guards(sleep: int) -> list[Guard]:
    """Return hooks of every kind; programs that hang are known by a number of seconds."""

    def shell(name: str, script: str, *, allows: bool = False, **options: Any) -> Guard:
        fields: dict[str, Any] = {"timeout": TIMEOUT, "output_limit": 65536} | options
        return Guard(
            ExecToolHook(name=name, command="sh", args=["-c", script], **fields), allows=allows
        )

    def server(name: str, statement: str, *, allows: bool = False, **options: Any) -> Guard:
        fields: dict[str, Any] = {"timeout": TIMEOUT, "output_limit": 65536} | options
        hook = ExecToolHook(
            name=name,
            command=sys.executable,
            args=["-c", SERVER % statement],
            runtime="server",
            **fields,
        )
        return Guard(hook, allows=allows)

    observe: dict[str, Any] = {"mode": "observe", "timeout": BRIEF}
    return [
        shell("allows", f"cat >/dev/null; echo '{ALLOW}'", allows=True),
        shell("denies", "cat >/dev/null; echo '{\"allow\": false}'"),
        shell("hangs", f"sleep {sleep}", timeout=BRIEF),
        shell("ignores", f"trap '' TERM; sleep {sleep} & sleep {sleep}", timeout=BRIEF),
        shell("leaves", f"sleep {sleep} >/dev/null 2>&1 & echo '{ALLOW}'", allows=True),
        shell("holds", f"sleep {sleep} & echo '{ALLOW}'"),
        shell("floods", "yes"),
        shell("exits", f"echo '{ALLOW}'; exit 3"),
        shell("crashes", f"echo '{ALLOW}'; kill -9 $$"),
        shell("twice", f"echo '{ALLOW}{ALLOW}'"),
        shell("nothing", "cat >/dev/null"),
        Guard(
            ExecToolHook(name="missing", command="/no/such/program", timeout=TIMEOUT), allows=False
        ),
        server("serves", "", allows=True),
        server("dies", "random.random() < .1 and os._exit(1)", allows=True),
        server("mute", "continue", timeout=BRIEF),
        server("repeats", "text = text + '\\n' + text"),  # at once: what comes later is too late
        server("garbles", "text = text[:-3]"),
        shell("watches", "cat >/dev/null", allows=True, **observe),
        shell("watches_on", f"sleep {sleep}", allows=True, **observe),
    ]


@define
class Turns:
    """What came of the turns."""

    seen: soak.Seen = field(factory=soak.Seen)
    slowest: float = 0.0

    async def run(self, plan: soak.Plan, seconds: float, turns: int) -> None:
        """Run turns for so long."""
        rng, mixture = random.Random(plan.seed), guards(plan.sleep)
        end, done = time.monotonic() + seconds, 0
        async with HookRunner(guard.hook for guard in mixture) as runner:
            while time.monotonic() < end or not self.seen.samples:
                async with anyio.create_task_group() as tasks:
                    for _ in range(turns):
                        # Servers that answer and programs that allow are half of them.
                        shares = [5 if guard.allows else 1 for guard in mixture]
                        chosen = {
                            guard.hook.name: guard for guard in rng.choices(mixture, shares, k=EACH)
                        }
                        tasks.start_soon(self._turn, runner, list(chosen.values()))
                done += turns
                self.seen.samples.append(soak.settled(plan, done))

    async def _turn(self, runner: HookRunner, chosen: list[Guard]) -> None:
        began = anyio.current_time()
        payload = {"Name": "shell", "Args": {"command": "x" * 1000}}
        hooks = [guard.hook for guard in chosen]
        decision = await runner.run("before_execution", payload, hooks=hooks)
        took = anyio.current_time() - began
        self.slowest = max(self.slowest, took)
        must_deny = [guard.hook.name for guard in chosen if not guard.allows]
        self.seen.calls["denied" if decision.blocks else "allowed"] += 1
        if must_deny and not decision.blocks:
            self.seen.wrong[f"allowed, though {', '.join(must_deny)} cannot have"] += 1
        if took > BOUND:
            self.seen.wrong[f"a decision after more than {BOUND:g} s"] += 1


def run(loop: Loop, seconds: float, seed: int, *, turns: int = TURNS) -> tuple[Turns, list[str]]:
    """Run turns on one event loop; return what came of them, and what is not as it should be."""
    plan = soak.Plan(
        loop=loop, calls=0, seed=seed, sleep=random.randrange(10**6, 10**7), targets={}
    )
    found = Turns()
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    how: dict[str, Any] = {
        "backend": "trio" if loop == "trio" else "asyncio",
        "backend_options": options,
    }
    anyio.run(anyio.sleep, 0, **how)
    before = soak.count(plan, 0)
    anyio.run(found.run, plan, seconds, turns, **how)
    found.seen.final = soak.settled(plan, 0, before["threads"])
    seen = found.seen
    samples = seen.samples if len(seen.samples) >= ENOUGH else [before]
    return found, soak.judge(attrs.evolve(seen, samples=samples), before)


def main(loops: tuple[Loop, ...], minutes: float, seed: int) -> int:
    """Run turns for some minutes, shared among the loops; return the exit status."""
    import logging

    logging.getLogger("anyspawn").addHandler(logging.NullHandler())  # hooks fail all the time here
    logging.getLogger("anyspawn").propagate = False
    problems: list[str] = []
    told = "nothing grew, nothing was left, and no denial was overruled"
    for number, loop in enumerate(loops):
        found, wrong = run(loop, minutes * 60 / len(loops), seed + number)
        problems += [f"{loop}: {problem}" for problem in wrong]
        ends: Counter[str] = found.seen.calls
        first, last = found.seen.samples[0], found.seen.samples[-1]
        print(
            f"{loop}: {sum(ends.values())} turns of {EACH} hooks, {TURNS} at once "
            f"({ends['allowed']} allowed, {ends['denied']} denied), slowest {found.slowest:.1f} s"
        )
        if len(found.seen.samples) < ENOUGH:
            told = f"nothing was left, and no denial was overruled; to see growth takes {ENOUGH} batches"
        print(f"  first {json.dumps(first)}\n  last  {json.dumps(last)}", flush=True)
    print("\n".join(problems) or told)
    return 1 if problems else 0
