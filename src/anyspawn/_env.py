"""Environment entries: their forms, and their values on a given host. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Env", "check_text"]


def check_text(value: object, field: str) -> str:
    """Return ``value`` if it can be passed to a program; otherwise raise an error that names
    ``field`` but not the value.
    """
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(
            f"{field} contains a NUL character, which no argument or variable can hold; remove it"
        )
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError(
                f"{field} contains a lone surrogate, which has no encoding; decode the bytes with "
                "os.fsdecode()"
            ) from None
        raise ValueError(
            f"{field} has characters that this process's locale cannot encode; use a UTF-8 locale "
            "(LC_ALL=C.UTF-8) or PYTHONUTF8=1"
        ) from None
    return value


def _check_name(name: object) -> str:
    text = check_text(name, "env: a variable's name")
    if not text or "=" in text:
        raise ValueError(
            f"env: {text.partition('=')[0] + '=...' if text else 'an empty string'} is not a variable name"
        )
    return text


class Env(Mapping[str, "str | None"]):
    """Variables for a program, by name. ``None`` means the host's value at call time; the variable
    is dropped if it is unset there.

    Its ``repr`` shows only names, so that the ``repr`` of a command does not put a secret into a
    log.

    Args:
        entries: A mapping of names to values, or strings: ``KEY=value`` literal, bare ``KEY``
            looked up on the host. If a name appears twice, the last entry counts.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, str | None] | Iterable[str] = ()) -> None:
        if isinstance(entries, (str, bytes)) or not isinstance(entries, Iterable):
            raise TypeError(
                f"env must be a mapping or an iterable of 'KEY=value' or 'KEY' strings, not {type(entries).__name__}"
            )
        found: dict[str, str | None] = {}
        if isinstance(entries, Mapping):
            for name, value in entries.items():
                known = _check_name(name)
                found[known] = (
                    None if value is None else check_text(value, f"env: the value of {known}")
                )
        else:
            for entry in entries:
                name, assigned, value = check_text(entry, "env: an entry").partition("=")
                found[_check_name(name)] = value if assigned else None
        self._entries = found

    def __getitem__(self, name: str) -> str | None:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"<env: {', '.join(self._entries) or 'empty'}>"

    def look_up(self, host: Mapping[str, str]) -> Env:
        """Return the same variables with the bare names looked up in ``host``."""
        if None not in self._entries.values():
            return self
        return Env(
            {
                name: host[name] if value is None else value
                for name, value in self._entries.items()
                if value is not None or name in host
            }
        )

    def known(self) -> dict[str, str]:
        """Return the variables whose value is known, as a plain dict."""
        return {name: value for name, value in self._entries.items() if value is not None}
