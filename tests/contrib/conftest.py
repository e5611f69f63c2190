"""`nox -s runtimes` installs the runtimes and names this folder; other sessions skip it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import anyspawn.sync

HERE = Path(__file__).parent
NAMES = {"google_adk": "google.adk", "openai_agents": "agents", "openai_agents_sandbox": "agents"}


def pytest_ignore_collect(collection_path, config):
    """Skip a test if this folder was not asked for, or if its runtime is not installed."""
    asked = any(Path(arg.partition("::")[0]).resolve().is_relative_to(HERE) for arg in config.args)
    if not asked:
        return True
    name = collection_path.stem.removeprefix("test_")
    is_test = collection_path.name.startswith("test_")
    return True if is_test and not installed(NAMES.get(name, name)) else None


def installed(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


@pytest.fixture(scope="session", autouse=True)
def warm_thread():
    """Start the event loop of `anyspawn.sync` before descriptors are counted, because it stays."""
    anyspawn.sync.spawn(["true"])
