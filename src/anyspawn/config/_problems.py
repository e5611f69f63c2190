"""The problems of a configuration, each with its line and column."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from anyspawn._foreign import plain
from anyspawn.exceptions import ConfigError

__all__ = ["ConfigProblem", "InvalidConfigError", "Path", "dotted", "listed"]

_MOST_NAMES = 20

Path = tuple["str | int", ...]


def dotted(path: Path) -> str:
    """Return a path as people write it: ``spec.hooks.pii.phases[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif "." in part or not part:
            text += f"[{part!r}]"
        else:
            text += f".{part}" if text else part
    return text


def listed(names: Iterable[str]) -> str:
    """Return names for a message, cut to a readable number."""
    found = list(names)
    more = len(found) - _MOST_NAMES
    return (", ".join(found[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")) or "none"


@frozen
class ConfigProblem:
    """One problem.

    Args:
        path: Where, such as ``spec.hooks.pii.phases[0]``; empty for the document as a whole.
        message: What is wrong, and what to do about it.
        line: The line in the file, counted from 1, if it is known.
        column: The column, counted from 1, if it is known.
    """

    path: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return plain(text, lines=False)


class InvalidConfigError(ConfigError):
    """A configuration has problems.

    Attributes:
        problems: All of them, in the order of the file.
        source: The file's name.
    """

    def __init__(self, problems: Iterable[ConfigProblem], source: str) -> None:
        self.problems = tuple(
            sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))
        )
        self.source = source
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return a line for each problem. It begins with ``file:line:column:``, which editors
        recognise.
        """
        return [
            ":".join(
                str(part)
                for part in (self.source, problem.line, problem.column)
                if part is not None
            )
            + f": {problem}"
            for problem in self.problems
        ]
