"""The ``if`` of Claude Code's hooks: a permission rule that narrows which calls a hook is asked
about. Pure.

A rule only avoids needless calls of a hook. So if a rule or a command cannot be understood, the
hook is asked, as in Claude Code.
"""

from __future__ import annotations

import fnmatch
import os.path
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from anyspawn.exceptions import ConfigError
from anyspawn.hooks._json import is_object

__all__ = ["condition"]

_RULE = re.compile(r"([\w.*-]+)(?:\((.*)\))?", re.DOTALL)
_SHELLS = ("Bash", "PowerShell")
_FILES = ("Read", "Edit", "Write", "NotebookEdit", "MultiEdit", "Glob", "Grep")
_PARTS = re.compile(r"&&|\|\||[;|&\n(){}`]")
_ASSIGNED = re.compile(r"(?:\w+=\S*\s+)*")
_LONGEST = 10_000


def condition(rule: str) -> Callable[[Mapping[str, Any], str], bool]:
    """Return a function that says whether a hook is asked about a message, in a project's folder.

    Raises:
        ConfigError: It is not one permission rule.
    """
    found = _RULE.fullmatch(rule.strip())
    if found is None:
        raise ConfigError(f"if: {rule!r} is not a permission rule such as Bash(git *)")
    tool, pattern = found.groups()

    def matches(message: Mapping[str, Any], folder: str) -> bool:
        name, told = message.get("tool_name"), message.get("tool_input")
        if not isinstance(name, str) or not fnmatch.fnmatchcase(name, tool):
            return False
        if not pattern or pattern == "*" or not is_object(told):
            return True
        if name in _SHELLS and isinstance(told.get("command"), str):
            return _command(pattern, told["command"])
        if name in _FILES and isinstance(told.get("file_path"), str):
            return _path(pattern, told["file_path"], folder)
        return True

    return matches


def _command(pattern: str, command: str) -> bool:
    """Whether a command, or one within it, may match ``git *``, ``git:*`` or an exact text."""
    pattern = pattern.removesuffix(":*") + " *" if pattern.endswith(":*") else pattern
    if len(command) > _LONGEST:
        return True
    several = len(pattern.replace("*", " ").split()) > 1
    if several and ("$" in command or "`" in command):
        return True
    for part in _PARTS.split(command.replace("$(", "(").replace("<(", "(")):
        try:
            words = " ".join(shlex.split(part))
        except ValueError:  # a quote that ends in another part
            return True
        for text in {part.strip(), words}:
            plain = text[_ASSIGNED.match(text).end() :]  # type: ignore[union-attr]  # may be empty
            if fnmatch.fnmatchcase(plain, pattern) or fnmatch.fnmatchcase(f"{plain} ", pattern):
                return True
    return False


def _path(pattern: str, path: str, folder: str) -> bool:
    """Whether a file's path may match a pattern in the manner of .gitignore."""
    if not re.fullmatch(r"[\w./*-]+", pattern) or pattern.startswith(("/", "~")):
        return True
    path = os.path.normpath(os.path.join(folder, path))
    if "/" not in pattern:
        return fnmatch.fnmatchcase(os.path.basename(path), pattern)
    if not path.startswith(folder.rstrip("/") + "/"):
        return False
    inside = path[len(folder.rstrip("/")) + 1 :]
    wanted = pattern.removeprefix("./")
    return fnmatch.fnmatchcase(inside, wanted) or fnmatch.fnmatchcase(f"/{inside}", wanted)
