"""An agent's loop under asyncio: hooks decide about each call of the model and of a tool before it
happens.

The model is played by a script, so that this runs anywhere; the hooks, and the tool, are real
programs.
"""

import asyncio
from pathlib import Path
from typing import Any

from anyspawn import Bubblewrap, spawn
from anyspawn.config import load_config
from anyspawn.hooks import HookRunner, ProviderRequest, ToolRequest, ToolResponse

HERE = Path(__file__).parent
SCRIPT: list[dict[str, Any]] = [
    {"tool": "shell", "args": {"command": "echo hello from a tool"}},
    {"tool": "shell", "args": {"command": "rm -rf /"}},
    {"say": "done"},
]


async def run_tool(call: dict[str, Any]) -> str:
    done = await spawn(["sh", "-c", call["args"]["command"]], sandbox=Bubblewrap(), timeout=5)
    return done.stdout.decode().strip()


async def turn(hooks: HookRunner, user: str) -> list[str]:
    """Return what happened in one turn, line by line."""
    lines: list[str] = []
    messages = [{"Role": "user", "Content": user}]
    for number, step in enumerate(SCRIPT):
        call = ProviderRequest(model="scripted", messages=messages, round=number)
        decision = await hooks.run("before_call", call)
        if decision.blocks:
            return [*lines, f"model call denied by {decision.hook}: {decision.reason}"]
        call = call if decision.payload is None else decision.payload  # what the model is asked
        if "say" in step:
            return [*lines, f"assistant: {step['say']}"]
        request = ToolRequest(name=step["tool"], args=step["args"], call_id=str(number))
        decision = await hooks.run("before_execution", request)
        if decision.blocks:
            content = f"denied: {decision.reason}"
        else:
            response = ToolResponse(name=step["tool"], content=await run_tool(step))
            after = await hooks.run("after_execution", (request, response))
            response = response if after.payload is None else after.payload
            content = f"withheld: {after.reason}" if after.blocks else response.content
        lines.append(f"{step['tool']} {step['args']['command']!r}: {content}")
        messages.append({"Role": "tool", "Content": content})
    return lines


async def main() -> None:
    async with load_config(HERE / "agent.yaml").open() as hooks:
        for user in ("please clean up", "my key is sk-0123456789abcdef"):
            print(f"user: {user}")
            for line in await turn(hooks, user):
                print(f"  {line}")


if __name__ == "__main__":
    asyncio.run(main())
