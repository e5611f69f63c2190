"""Foreign text, such as a daemon's or a configuration file's, in anyspawn's messages."""

from __future__ import annotations

__all__ = ["plain"]


def plain(text: str, *, lines: bool = True) -> str:
    """Return a text with control sequences and invisible characters escaped as in Python.

    Args:
        text: The text.
        lines: Keep line breaks and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character if character.isprintable() or character in kept else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]
