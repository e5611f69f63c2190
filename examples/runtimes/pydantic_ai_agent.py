"""An agent of Pydantic AI with a box as its workspace, and tools that hooks guard."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.workspaces import Workspace

from anyspawn import Bubblewrap, open_box
from anyspawn.config import load_config
from anyspawn.contrib.pydantic_ai import BoxBackend, GuardedToolset


async def ask(model: Any, tools: Any, question: str) -> Any:
    async with open_box(Bubblewrap()) as box, load_config("agent.yaml").open() as hooks:
        agent = Agent(model, toolsets=[GuardedToolset(tools, hooks)])
        return await agent.run(question, workspace=Workspace(BoxBackend(box)))
