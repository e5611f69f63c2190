"""Parsers of field values. Pure."""

from __future__ import annotations

import re

__all__ = ["parse_size"]

_SIZE = re.compile(
    r"([0-9]{1,18}(?:\.[0-9]{1,18})?|\.[0-9]{1,18})\s*(?:b|([kmgt])(?:i?b)?)?",
    re.IGNORECASE | re.ASCII,
)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return a size in bytes: ``4096``, ``10k``, ``10KiB``, ``10MB``, ``1.5g``.

    All units are powers of 1024, as in docker, in upper or lower case. A fraction of a byte is
    dropped.

    Raises:
        ValueError: The text is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a size; write a number of bytes, or 10k, 512MB, 1.5GiB, 4g "
            "(all powers of 1024)"
        )
    from fractions import Fraction  # slow to import

    return int(Fraction(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()])
