"""An agent of Google's ADK whose code runs in boxes."""

from __future__ import annotations

from google.adk.agents import LlmAgent

from anyspawn import Bubblewrap
from anyspawn.contrib.google_adk import BoxCodeExecutor

executor = BoxCodeExecutor(sandbox=Bubblewrap(), timeout_seconds=30)
agent = LlmAgent(name="analyst", model="gemini-flash-latest", code_executor=executor)
