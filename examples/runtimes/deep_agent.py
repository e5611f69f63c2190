"""A deep agent whose files and commands are a box's."""

from __future__ import annotations

from typing import Any

from deepagents import create_deep_agent

from anyspawn import Bubblewrap, open_box
from anyspawn.contrib.deepagents import BoxBackend


async def ask(model: Any, question: str) -> Any:
    async with open_box(Bubblewrap()) as box:
        agent = create_deep_agent(model=model, backend=BoxBackend(box))
        return await agent.ainvoke({"messages": [("user", question)]})
