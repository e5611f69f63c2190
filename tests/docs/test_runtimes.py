"""The how-to page about agent runtimes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from pkgutil import iter_modules

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
