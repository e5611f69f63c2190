"""Pictures of the documentation that are drawn from the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_phases_of_a_call():
    """The picture is the one that the table of phases gives: `python docs/call_picture.py`."""
    spec = importlib.util.spec_from_file_location("call_picture", DOCS / "call_picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "call.svg").read_text(encoding="utf-8") == module.picture()
