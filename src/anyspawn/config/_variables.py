"""``${NAME}`` and ``${NAME:-default}`` in a configuration's texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from anyspawn.config._problems import Path

__all__ = ["Expanded", "expand"]

_REFERENCE = re.compile(r"(\$?)\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?")


class Expanded(str):
    """A text with a variable's value in it; it can also mean a number or a boolean."""

    __slots__ = ()


def expand(
    value: Any, path: Path, host: Mapping[str, str], problem: Callable[[Path, str], None]
) -> Any:
    """Return ``value`` with the references in all its texts replaced; ``$${`` stands for ``${``
    itself.

    Args:
        value: Plain values.
        path: The path of the value.
        host: The variables.
        problem: Called with each reference that is not valid.
    """
    if isinstance(value, dict):
        for key in value:
            if "${" in key:
                problem((*path, key), "a key cannot contain a variable; write the key itself")
        return {key: expand(item, (*path, key), host, problem) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, (*path, index), host, problem) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match[0][1:]
        if name is None:
            problem(
                path,
                "${ is not followed by NAME} or NAME:-default}; for the characters themselves write $${",
            )
            return match[0]
        if default is not None and "${" in default:
            problem(path, f"the default of {name} holds another ${{, which is not looked up there")
            return match[0]
        if default is not None:
            return host.get(name) or default[2:]
        if name not in host:
            problem(
                path, f"the variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
            )
        return host.get(name, match[0])

    return Expanded(_REFERENCE.sub(replace, value))
