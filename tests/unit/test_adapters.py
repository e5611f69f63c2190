"""Adapters for agent runtimes that are not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyspawn

WITHOUT = """
import importlib, json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "anyspawn" and name.startswith(tuple(sys.argv[1].split(","))):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
said = {}
for name in sys.argv[2:]:
    try:
        importlib.import_module(f"anyspawn.contrib.{name}")
    except ImportError as exc:
        said[name] = [type(exc).__name__, str(exc)]
print(json.dumps(said))
"""
RUNTIMES = (
    "agents", "claude_agent_sdk", "deepagents", "google", "inspect_ai", "mcp", "pydantic_ai", "smolagents",
)  # fmt: skip
EXTRAS = {"openai_agents_sandbox": "openai-agents"}


def test_each_says_what_to_install():
    """Importing an adapter without its runtime raises an ImportError that names the extra to
    install.
    """
    folder = Path(anyspawn.__file__).parent / "contrib"
    names = [path.stem for path in folder.iterdir() if path.stem[0] not in "_."]
    argv = [sys.executable, "-c", WITHOUT, ",".join(RUNTIMES), *names]
    said = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert len(names) >= 9
    for name in names:
        kind, message = said[name]
        assert kind == "ImportError"
        assert f"pip install 'anyspawn[{EXTRAS.get(name, name.replace('_', '-'))}]'" in message
