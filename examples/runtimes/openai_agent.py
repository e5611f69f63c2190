"""An agent of OpenAI's Agents SDK: its shell runs in a box, and hooks guard a tool."""

from __future__ import annotations

from typing import Any

from agents import Agent, Runner, ShellTool, function_tool

from anyspawn import Bubblewrap, open_box
from anyspawn.config import load_config
from anyspawn.contrib.openai_agents import shell_executor, tool_guardrail


async def ask(question: str) -> Any:
    async with open_box(Bubblewrap()) as box, load_config("agent.yaml").open() as hooks:

        @function_tool(tool_input_guardrails=[tool_guardrail(hooks)])  # type: ignore[untyped-decorator]
        def send(text: str) -> str:
            return f"sent {text}"

        agent = Agent("assistant", tools=[send, ShellTool(executor=shell_executor(box))])
        return await Runner.run(agent, question)
