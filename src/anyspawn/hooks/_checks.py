"""Checks of arguments that hooks, tools, evaluators and selectors share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import Attribute

from anyspawn._env import Env
from anyspawn._model import Sandbox
from anyspawn._registry import nearest
from anyspawn.exceptions import ConfigError
from anyspawn.sandboxes.direct import Direct

__all__ = [
    "flag",
    "one_of",
    "positive",
    "seconds",
    "text",
    "to_args",
    "to_env",
    "to_sandbox",
]

_LONGEST_TIMEOUT = 1e6


def to_args(value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise ConfigError(f"args must be a list of texts, not {value!r}")
    return tuple(value)


def to_env(value: Mapping[str, str | None] | Iterable[str]) -> Env:
    return value if isinstance(value, Env) else Env(value)


def to_sandbox(value: Sandbox | None) -> Sandbox:
    return Direct() if value is None else value


def one_of(*known: str) -> Callable[[object, Attribute[Any], Any], None]:
    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if value not in known:
            hint = nearest(str(value), list(known))
            raise ConfigError(
                f"{attribute.name} must be one of {', '.join(known)}, not {value!r}{hint}"
            )

    return check


def text(_: object, __: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"name must be a text that is not empty, not {value!r}")


def flag(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} must be True or False, not {value!r}")


def seconds(_: object, __: Attribute[Any], value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and value <= _LONGEST_TIMEOUT):
        raise ConfigError(
            f"timeout must be a number of seconds, at most {_LONGEST_TIMEOUT:,.0f}, not {value!r}"
        )


def positive(_: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{attribute.name} must be a whole number of bytes above 0, not {value!r}"
        )
