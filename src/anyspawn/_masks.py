"""Hides values of variables in a program's output."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from typing import Any

from anyspawn._env import Env

__all__ = ["Masks"]

_HIDDEN = "***"
_SECRET_NAME = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY", re.IGNORECASE)
_SHORTEST = 6
"""Shorter values are not hidden: ``1`` or ``true`` appears everywhere."""
_PREFIX = 4
_QUOTED = (repr, json.dumps, partial(json.dumps, ensure_ascii=False))
"""The ways in which programs quote a value."""
_STDERR_SHOWN = 400
_TAIL_READ = 64 * 1024
_TAIL_LINES = 8
_TAIL_SHOWN = 1000


class Masks:
    """Hides values of variables in texts that a program wrote: a program can print its environment.

    It hides the values of the command's ``env``, and of the host's variables with names of secrets,
    from 6 characters on; also values that are cut off.
    """

    def __init__(self, env: Env) -> None:
        host = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
        values = {value for value in {*env.known().values(), *host} if len(value) >= _SHORTEST}
        written = {form(value)[1:-1] for value in values for form in _QUOTED}
        self._values = sorted(values | written, key=len, reverse=True)

    def whole(self, text: str) -> str:
        """Return a complete text, masked."""
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        return text

    def cut(self, text: str) -> str:
        """Return a text that can end in the middle of a value, masked."""
        text = self.whole(text)
        for value in self._values:
            for size in range(min(len(value) - 1, len(text)), _PREFIX - 1, -1):
                if text.endswith(value[:size]):
                    return text[:-size] + _HIDDEN
        return text

    def inside(self, value: Any) -> Any:
        """Return a JSON value with all its texts masked."""
        if isinstance(value, str):
            return self.whole(value)
        if isinstance(value, list):
            return [self.inside(item) for item in value]
        if isinstance(value, dict):
            return {self.whole(name): self.inside(item) for name, item in value.items()}
        return value

    def stderr(self, data: bytes) -> str:
        """Return the end of stderr, in one line."""
        text = self.cut(data.decode(errors="replace"))
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return "... " + text[-_STDERR_SHOWN:] if len(text) > _STDERR_SHOWN else text

    def last_lines(self, data: bytes) -> str:
        """Return the last lines of stderr, shortened; several of them are indented."""
        text = self.cut(data[-_TAIL_READ:].decode(errors="replace"))
        lines = [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
        shown = "\n".join(lines)
        if len(shown) > _TAIL_SHOWN:
            shown = f"... {shown[-_TAIL_SHOWN:]}"
        return f"\n{shown}".replace("\n", "\n  ") if "\n" in shown else f" {shown.strip()}"
