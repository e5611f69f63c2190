"""Reads the output of an agent tool's hook: one JSON object, or text.

Pure. It is strict, because a denial can depend on it: an object with other text around it is a
failure, and so is text that looks like a verdict.
"""

from __future__ import annotations

import json
import re
from typing import Any

from anyspawn.hooks._wire import WireError, decode_object, kind_of

__all__ = ["read_answer"]

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_OBJECT = re.compile(r"\{\s*['\"\\}]")
_SAYS_NO = re.compile(
    r"(?:(?:permission\w*|decision|behaviou?r)['\"]?\s*[:=]\s*['\"]?(?:den|block|reject|ask|false|no\b)"
    r"|\b(?:allow\w*|continue|ok)['\"]?\s*[:=]\s*['\"]?(?:den|false|no\b|0)"
    r"|\b(?:block\w*|den(?:y|ied))['\"]?\s*[:=]\s*['\"]?(?:true|yes|1))",
    re.IGNORECASE,
)
_SHOWN = 10_000


def read_answer(stdout: bytes, *, guards: bool, prose: bool) -> tuple[dict[str, Any] | None, str]:
    """Return the answer and the text of an output; the answer is ``None`` if there is no JSON
    object.

    Args:
        stdout: What the hook printed.
        guards: Whether the event's hooks can deny; if so, text must not look like JSON.
        prose: Whether plain text is context for the model, and so may contain a brace.

    Raises:
        WireError: It cannot be read, or there is text around the object.
    """
    data = stdout.removeprefix(b"\xef\xbb\xbf").strip()
    if not data:
        return None, ""
    if b"\0" in data:
        raise WireError("its answer has NUL bytes, as UTF-16 has; it must be UTF-8")
    if data.startswith(b"{"):
        return decode_object(data), ""
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise WireError(f"its answer is not UTF-8 (byte {exc.start})") from None
    if guards:
        _no_verdict(text, prose=prose)
    return None, text[:_SHOWN]


def _no_verdict(text: str, *, prose: bool) -> None:
    """Refuse text that looks like a verdict, with or without its terminal colors."""
    forms = {_printable(text), _printable(_COLOURS.sub("", text))}
    for plain in forms:
        braces = "{" in plain
        says_no = (braces or not prose) and _SAYS_NO.search(plain)
        if says_no or (_OBJECT.search(plain) if prose else braces):
            raise WireError(
                "its answer is not one JSON object: there is text before or around what looks like "
                "a verdict; print the object alone"
            )
        try:
            value = json.loads(plain)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise WireError(f"its answer is {kind_of(value)}, not a JSON object")


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c.isspace()).replace("\ufeff", "")
