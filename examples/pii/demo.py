"""Run the PII hooks of agent.yaml, a redactor and a filter, over recorded chat requests, all at
once, each hook in its own sandbox.
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
        redacted = decision.payload is not None
        word = "deny" if decision.blocks else "redact" if redacted else "allow"
        wanted = {"clean": "allow", "redacted": "redact", "pii": "deny"}[name.partition("-")[0]]
        wrong += word != wanted or "failed" in decision.reason
        text = decision.payload["Messages"][-1]["Content"] if redacted else decision.reason
        print(f"{name:<20} {word:<8} {seconds * 1000:>6.1f}  {text}")
    print(
        f"{len(decisions)} requests, each hook in a sandbox of its own (bubblewrap), {wrong} wrong verdicts"
    )
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
