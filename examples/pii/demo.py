"""Run the PII hook of agent.yaml over recorded chat requests, all at once, each in a sandbox of its
own.
"""

import json
import sys
import time
from pathlib import Path

import anyio

from anyspawn.config import load_config
from anyspawn.hooks import Decision

HERE = Path(__file__).parent
REQUESTS = {
    file.stem: json.loads(file.read_text()) for file in sorted((HERE / "requests").glob("*.json"))
}


async def main() -> int:
    decisions: dict[str, tuple[Decision, float]] = {}

    async with load_config(HERE / "agent.yaml").open() as hooks:

        async def check(name: str) -> None:
            began = time.perf_counter()
            decision = await hooks.run("before_call", REQUESTS[name])
            decisions[name] = (decision, time.perf_counter() - began)

        async with anyio.create_task_group() as tasks:
            for name in REQUESTS:
                tasks.start_soon(check, name)

    wrong = 0
    print(f"{'request':<20} {'verdict':<8} {'ms':>6}  reason")
    for name, (decision, seconds) in sorted(decisions.items()):
        wrong += decision.allow is not name.startswith("clean-") or "failed" in decision.reason
        word = "allow" if decision.allow else "deny"
        print(f"{name:<20} {word:<8} {seconds * 1000:>6.1f}  {decision.reason}")
    print(
        f"{len(decisions)} requests, each in a sandbox of its own (bubblewrap), {wrong} wrong verdicts"
    )
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
