"""The pages about security and comparisons refer to existing tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
KIT = ROOT / "src/anyspawn/testing/_boxes.py"


def test_each_measure_has_its_test():
    """The files and the functions in each row exist."""
    page = (ROOT / "docs/security.md").read_text()
    rows = []
    for title in ("Each measure, and the test that shows it", "Compared with other sandboxes"):
        section = page.split(f"## {title}\n")[1].split("\n## ")[0]
        rows += [line for line in section.splitlines() if line.startswith("| ")][2:]
    (containers,) = re.findall(r"^For containers: .*?\n\n", page, re.MULTILINE | re.DOTALL)
    rows.append(containers)
    assert len(rows) > 20
    shown(rows)


def test_each_capability_of_a_box_has_its_test():
    """The files and the functions in the column "shown by" exist."""
    page = (ROOT / "docs/compared.md").read_text()
    tables = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [cells[2] for cells in tables if cells[2] not in ("shown by", "---")]
    assert len(rows) > 15
    assert len({len(cells) for cells in tables}) == 1
    shown(rows)


def shown(rows):
    """Check that each row names existing files, and functions in them."""
    for row in rows:
        places = [ROOT / "tests" / name for name in re.findall(r"`(\w+/(?:\w+\.py)?)`", row)]
        assert places, row
        assert all(place.exists() for place in places), row
        text = "".join(place.read_text() for place in places if place.is_file())
        if "kit/" in row:  # the classes there inherit their tests
            text += KIT.read_text()
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in text, row
