"""Tools of Google's ADK that work in a box."""

from __future__ import annotations

from google.adk.tools.environment import EnvironmentToolset

from anyspawn import Bubblewrap
from anyspawn.contrib.google_adk import BoxEnvironment

environment = BoxEnvironment(Bubblewrap(), workdir="/work")
tools = EnvironmentToolset(environment=environment)  # for an LlmAgent
