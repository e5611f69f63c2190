"""A trio program that judges many tool calls at once, and gives up on all of them after a while."""

from pathlib import Path

import trio

from anyspawn.config import load_config
from anyspawn.hooks import ToolRequest

HERE = Path(__file__).parent
COMMANDS = ["ls -l", "rm -rf build", "git status", "curl http://example.org", "make test"]


async def main() -> None:
    verdicts: dict[str, str] = {}
    with trio.fail_after(30):
        async with load_config(HERE / "agent.yaml").open() as hooks, trio.open_nursery() as nursery:

            async def judge(command: str) -> None:
                decision = await hooks.run(
                    "before_execution", ToolRequest(name="shell", args={"command": command})
                )
                verdicts[command] = "allowed" if decision.allow else f"denied: {decision.reason}"

            for command in COMMANDS:
                nursery.start_soon(judge, command)
    for command in COMMANDS:
        print(f"{command:<24} {verdicts[command]}")


if __name__ == "__main__":
    trio.run(main)
