"""The reference documents every public name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "reference").glob("*.md"))
MODULES = ("", ".argv", ".config", ".containers", ".hooks", ".sync", ".testing", ".tools")
WRITTEN = {
    name
    for page in PAGES
    for name in re.findall(r"^\.\. (?:auto\w+|py:\w+):: ([\w.]+)", page.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_is_in_the_reference(module):
    """Each exported name has an entry on a page of the reference."""
    names = importlib.import_module(f"anyspawn{module}").__all__
    missing = {f"anyspawn{module}.{name}" for name in names} - WRITTEN
    assert {name for name in missing if not name.endswith("__")} == set()
