"""A sandbox agent of OpenAI's Agents SDK: each run has its own box."""

from __future__ import annotations

from typing import Any

from agents import RunConfig, Runner
from agents.sandbox import SandboxAgent, SandboxRunConfig

from anyspawn import Bubblewrap, Limits
from anyspawn.contrib.openai_agents_sandbox import BoxClient


async def ask(question: str) -> Any:
    client = BoxClient(Bubblewrap(limits=Limits(memory="1GiB")))
    config = RunConfig(sandbox=SandboxRunConfig(client=client))
    return await Runner.run(SandboxAgent("assistant"), question, run_config=config)
