"""The documentation's table of faults is the one that the tests use."""

from __future__ import annotations

from pathlib import Path

from engine_faults import table

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "docker.md"


def test_the_table_of_faults_is_the_one_that_is_tested():
    """Each row is a test in each of its modes."""
    assert table() in PAGE.read_text(), f"paste this into {PAGE.name}:\n{table()}"
