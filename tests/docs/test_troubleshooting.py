"""The messages on the troubleshooting page are anyspawn's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADINGS = re.findall(
    r"^## (.*)$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
)
QUOTED = [words for heading in HEADINGS for words in re.findall(r'"(.+?)"(?=,|$| )', heading)]
SOURCE = "\n".join(file.read_text() for file in sorted((ROOT / "src/anyspawn").rglob("*.py")))
JOINED = re.sub(r'"\s*\n\s*f?"', "", SOURCE)


@pytest.mark.parametrize("words", QUOTED)
def test_a_message_that_is_explained_exists(words):
    """The parts of each quoted message are in the code."""
    for part in words.split("..."):
        assert part.strip() in JOINED, f"no message has {part.strip()!r}"


def test_headings_were_found():
    """The pattern finds every quoted message."""
    assert len(QUOTED) >= sum('"' in heading for heading in HEADINGS) > 10
