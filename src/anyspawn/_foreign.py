"""Words of others, such as a daemon's or a configuration file's, in our own messages."""

from __future__ import annotations

__all__ = ["plain"]


def plain(text: str, *, lines: bool = True) -> str:
    """Return a text with what a terminal would obey, and what cannot be seen, escaped as in Python.

    Args:
        text: The text.
        lines: It may have several lines, and tabs.
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
