"""What clients of an engine hand on: text."""

from __future__ import annotations

from collections.abc import Iterable

from anyspawn.exceptions import ConfigError


def is_text(words: Iterable[str]) -> bool:
    """Whether words are Unicode; other bytes, which Python holds as surrogates, would reach the
    program as U+FFFD.
    """
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(what: str, words: Iterable[str], instead: str) -> None:
    """Raise a ConfigError for words that are not text.

    Args:
        what: The argument that they come from.
        words: The words; they are not quoted, as they may be secret.
        instead: How to hand them over all the same.
    """
    if not is_text(words):
        raise ConfigError(f"{what} has bytes that are not UTF-8, which engines change; {instead}")
