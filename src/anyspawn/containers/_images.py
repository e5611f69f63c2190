"""The image for an agent or a command, and the host's variables that can go into a container.
Pure.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

__all__ = ["FALLBACK_IMAGE", "detect_image", "filter_env", "select_image"]

FALLBACK_IMAGE = "alpine:latest"

_BY_PROGRAM = {
    "python": "python:3-slim",
    "pip": "python:3-slim",
    "pytest": "python:3-slim",
    "uv": "python:3-slim",
    "node": "node:lts-slim",
    "npm": "node:lts-slim",
    "npx": "node:lts-slim",
    "yarn": "node:lts-slim",
    "go": "golang:latest",
    "cargo": "rust:slim",
    "rustc": "rust:slim",
    "ruby": "ruby:slim",
    "gem": "ruby:slim",
    "bundle": "ruby:slim",
    "php": "php:cli",
    "composer": "composer:latest",
    "perl": "perl:slim",
    "java": "eclipse-temurin:latest",
    "javac": "eclipse-temurin:latest",
    "mvn": "maven:latest",
    "gradle": "gradle:latest",
    "gcc": "gcc:latest",
    "make": "gcc:latest",
}
_BY_SUFFIX = {
    ".py": "python",
    ".js": "node",
    ".mjs": "node",
    ".ts": "node",
    ".rb": "ruby",
    ".php": "php",
    ".pl": "perl",
}
_WRAPPERS = {
    "env": ("-C", "-u", "--chdir", "--unset"),
    "exec": ("-a",),
    "nice": ("-n", "--adjustment"),
    "nohup": (),
    "time": ("-f", "-o", "--format", "--output"),
}
"""Commands that run another program, with those of their options that take the next word."""


def detect_image(argv: Sequence[str]) -> str:
    """Return the image that a command needs, by its program's name or its script's ending; else
    ``alpine:latest``.

    ``env`` and the like in front are skipped, with their options and assignments; so is a version
    in the name (``python3.12``).
    """
    words = list(argv)
    while words and os.path.basename(words[0]) in _WRAPPERS:
        takes = _WRAPPERS[os.path.basename(words[0])]
        words = words[1:]
        while words and (words[0].startswith("-") or "=" in words[0]):
            words = words[2:] if words[0] in takes else words[1:]
    if not words:
        return FALLBACK_IMAGE
    program = os.path.basename(words[0])
    name = program.rstrip("0123456789.-")
    by_suffix = _BY_SUFFIX.get(os.path.splitext(program)[1], "")
    return (
        _BY_PROGRAM.get(program)
        or _BY_PROGRAM.get(name)
        or _BY_PROGRAM.get(by_suffix, FALLBACK_IMAGE)
    )


def select_image(agent: str, images: Mapping[str, str], argv: Sequence[str] = ()) -> str:
    """Return the image for an agent: the entry with its name, or with the longest prefix of its
    name, or ``default``.

    Without any of these, return `detect_image` of the command, or of the agent's name.

    Args:
        agent: The agent's name, such as ``claude-code``.
        images: Images by name.
        argv: The command, if there is one yet.
    """
    if agent in images:
        return images[agent]
    prefixes = [name for name in images if name and agent.startswith(name)]
    if prefixes:
        return images[max(prefixes, key=len)]
    return images.get("default") or detect_image(argv or [agent])


def filter_env(
    host: Mapping[str, str], allow: Iterable[str], block: Iterable[str] = ()
) -> dict[str, str]:
    """Return the host's variables that ``allow`` names and ``block`` does not.

    Args:
        host: The variables.
        allow: Names, or patterns with ``*``, ``?`` and ``[...]``; upper and lower case are the
            same.
        block: Names and patterns that win over ``allow``.
    """
    allowed = [pattern.upper() for pattern in allow]
    blocked = [pattern.upper() for pattern in block]

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name.upper(), pattern) for pattern in patterns)

    return {
        name: value
        for name, value in host.items()
        if matches(name, allowed) and not matches(name, blocked)
    }
