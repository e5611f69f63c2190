"""The how-to page about agent runtimes."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

ROOT = Path(__file__).parents[2]


def test_versions():
    """The table shows the versions that each extra installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "how-to" / "runtimes.md").read_text()
    told = dict(re.findall(r"^\|.*'anyspawn\[(.+)\]'.*\| `(>=.*)` \|$", page, re.MULTILINE))
    runtimes = {module.name for module in iter_modules([ROOT / "src/anyspawn/contrib"])}
    extras = {
        name: re.sub(r"^[a-z-]+", "", needs[0])
        for name, needs in project["optional-dependencies"].items()
        if name.replace("-", "_") in runtimes
    }
    assert told == extras


@pytest.mark.parametrize(
    ("module", "extra", "runtime"),
    [
        ("claude_agent_sdk", "claude-agent-sdk", "claude_agent_sdk"),
        ("deepagents", "deepagents", "deepagents"),
        ("google_adk", "google-adk", "google.adk"),
        ("inspect_ai", "inspect-ai", "inspect_ai"),
        ("mcp", "mcp", "mcp"),
        ("openai_agents", "openai-agents", "agents"),
        ("openai_agents_sandbox", "openai-agents", "agents"),
        ("pydantic_ai", "pydantic-ai", "pydantic_ai"),
        ("smolagents", "smolagents", "smolagents"),
    ],
)
def test_an_adapter_without_its_runtime(module, extra, runtime, monkeypatch):
    """The error names the extra to install."""
    for name in [*sys.modules]:
        if name.startswith("anyspawn.contrib.") or f"{name}.".startswith(f"{runtime}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(ImportError, match=re.escape(f"pip install 'anyspawn[{extra}]'")):
        import_module(f"anyspawn.contrib.{module}")
