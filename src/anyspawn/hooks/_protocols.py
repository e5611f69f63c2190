"""The protocols of agent tools, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from anyspawn.hooks._agents import Agent
from anyspawn.hooks._claude import CLAUDE
from anyspawn.hooks._codex import CODEX
from anyspawn.hooks._copilot import COPILOT
from anyspawn.hooks._cursor import CURSOR
from anyspawn.hooks._gemini import GEMINI

__all__ = ["AGENTS", "OnFailure", "ProtocolName"]

ProtocolName = Literal["exec", "claude", "codex", "gemini", "cursor", "copilot"]
OnFailure = Literal[
    "deny", "allow", "as_claude", "as_codex", "as_gemini", "as_cursor", "as_copilot"
]

AGENTS: Mapping[str, Agent] = {
    agent.name: agent for agent in (CLAUDE, CODEX, GEMINI, CURSOR, COPILOT)
}
