"""Checks that arguments and variables are text, because clients of docker and Kubernetes change
other bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from anyspawn.exceptions import ConfigError


def is_text(words: Iterable[str]) -> bool:
    """Whether strings are Unicode. Other bytes, which Python stores as surrogates, would reach the
    program as U+FFFD.
    """
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(what: str, words: Iterable[str], instead: str) -> None:
    """Raise a ConfigError for strings that are not text.

    Args:
        what: The name of the argument.
        words: The strings; the message does not quote them, because they may be secret.
        instead: How to pass them nevertheless.
    """
    if not is_text(words):
        raise ConfigError(f"{what} has bytes that are not UTF-8, which engines change; {instead}")
