"""Which tools, sources or types a hook is asked about. Pure.

A model chooses the names that a matcher is compared with, and must not be able to make a match
slow. So a regular expression may have few choices, and a name that is longer than any tool's is not
compared: the hook is asked about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from anyspawn.exceptions import ConfigError

__all__ = ["Style", "matcher"]

Style = Literal["names", "search", "full", "exact"]
"""How a tool compares matchers with names.

``names``: names alone match whole, anything else is a regular expression found anywhere (Claude
Code, Codex); ``search``: always that; ``full``: a regular expression of the whole name; ``exact``.
"""

_LONGEST = 128
_MOST_CHOICES = 3
_NAMES_ALONE = re.compile(r"[\w\- ,|]*", re.ASCII)
_COSTLY = re.compile(r"\)[*+?{]|\(\?(?!:)|\\[1-9]")
_CHOICE = re.compile(r"[*+?{]|\([^()]*\|")
_RULE = re.compile(r"[\w*]+\((?!\?)(?:[^|]*|.*[ :/~].*)\)")
_BARE_SERVER = re.compile(r"mcp__(?:(?!__).)+")

_RULE_SPELLING = (
    "matcher {0!r} is in the spelling of permission rules, and could never match a name; write the "
    "tool's name alone, and have the hook look at its input"
)


def matcher(pattern: str, style: Style, *, tools: bool) -> Callable[[str], bool]:
    """Return a function that says whether a name matches; ``*`` or nothing matches all.

    Args:
        pattern: The matcher.
        style: How it is read.
        tools: Whether it is compared with names of tools.

    Raises:
        ConfigError: It is not valid, could take long, or could never match.
    """
    if pattern in {"", "*"}:
        return lambda _: True
    if style == "exact":
        return lambda name: name == pattern
    _can_match(pattern, tools=tools)
    if style == "names" and _NAMES_ALONE.fullmatch(pattern):
        names = {name.strip() for name in re.split("[|,]", pattern)} - {""}
        if not names:
            raise ConfigError("matcher names no tool; write names such as Edit|Write, or * for all")
        for name in names:
            if tools and " " in name:
                raise ConfigError(
                    f"matcher {pattern!r} could never match, as no tool has a space in its name; "
                    "separate names by |"
                )
            if tools and _BARE_SERVER.fullmatch(name):
                raise ConfigError(
                    f"matcher {pattern!r} could never match a tool; for all tools of that MCP "
                    f"server write {name}__.*"
                )
        return lambda name: name in names
    found = _compiled(pattern)
    if style == "full":
        return lambda name: len(name) > _LONGEST or found.fullmatch(name) is not None
    return lambda name: len(name) > _LONGEST or found.search(name) is not None


def _can_match(pattern: str, *, tools: bool) -> None:
    if tools and any(_RULE.fullmatch(part) for part in re.split(r"[|,]\s*(?![^(]*\))", pattern)):
        raise ConfigError(_RULE_SPELLING.format(pattern))
    if tools and pattern.startswith("!"):
        raise ConfigError(
            f"matcher {pattern!r} could never match: there is no negation; name the tools to ask about"
        )
    if tools and len(pattern) > 1 and pattern.startswith("/") and pattern.endswith("/"):
        raise ConfigError(
            f"matcher {pattern!r} could never match a tool; write the expression without slashes"
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    choices = (len(_CHOICE.findall(part.replace("(?:", "("))) for part in _alternatives(pattern))
    if _COSTLY.search(pattern) or max(choices) > _MOST_CHOICES:
        raise ConfigError(
            "matcher could take very long; write it without repeated groups, look-around and "
            f"back-references, and with at most {_MOST_CHOICES} of * + ? {{}} and (a|b) a name"
        )
    try:
        return re.compile(pattern)
    except re.error as exc:
        raise ConfigError(
            f"matcher is neither names such as Edit|Write nor a regular expression: {exc}"
        ) from None


def _alternatives(pattern: str) -> list[str]:
    """Return the parts between the bars that are outside of groups."""
    parts: list[str] = []
    depth = start = 0
    for index, character in enumerate(pattern):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and not depth:
            parts.append(pattern[start:index])
            start = index + 1
    return [*parts, pattern[start:]]
