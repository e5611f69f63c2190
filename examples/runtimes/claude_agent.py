"""An agent of the Claude Agent SDK whose CLI runs in a box, and whose tools hooks guard."""

from __future__ import annotations

import os
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query

from anyspawn import Bubblewrap, Egress, open_box
from anyspawn.config import load_config
from anyspawn.contrib.claude_agent_sdk import BoxTransport, tool_hooks

CLI = "/opt/claude/claude"


async def ask(question: str) -> Any:
    sandbox = Bubblewrap(readonly=[CLI], network=Egress(allow=["api.anthropic.com"]))
    async with open_box(sandbox) as box, load_config("agent.yaml").open() as hooks:
        env = {"ANTHROPIC_API_KEY": os.environ["ANTHROPIC_API_KEY"]}
        options = ClaudeAgentOptions(cli_path=CLI, env=env, hooks=tool_hooks(hooks))
        transport = BoxTransport(box, options)
        async for message in query(prompt=question, options=options, transport=transport):
            if isinstance(message, ResultMessage):
                return message.result
    return None
