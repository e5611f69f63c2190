"""Parser of durations. Pure."""

from __future__ import annotations

import math
import re
from fractions import Fraction

__all__ = ["parse_duration"]

_NUMBER = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?|\.[0-9]{1,18})\s*([A-Za-z]*)")

_SECONDS = {
    "": Fraction(1),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}


def parse_duration(text: str) -> float:
    """Return a duration in seconds: ``500ms``, ``5s``, ``2m``, ``1h``, ``1.5``, or ``inf``.

    Raises:
        ValueError: The text is not a duration, or is not above 0.
    """
    if text.strip().lower() == "inf":
        return math.inf
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2] not in _SECONDS:
        raise ValueError(
            f"{text!r} is not a duration; write 500ms, 5s, 2m, 1h, a number of seconds, or inf for no limit"
        )
    seconds = float(Fraction(match[1]) * _SECONDS[match[2]])
    if not seconds:
        raise ValueError(f"{text!r} is too short; write a duration above 0, or inf for no limit")
    return seconds
