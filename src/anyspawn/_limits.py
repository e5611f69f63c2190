"""`Limits`: how much of the host a program may use. Pure."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from anyspawn._fields import parse_size
from anyspawn.exceptions import ConfigError

__all__ = ["Limits", "count_or_none", "limits_or_none"]

Size = str | int | None


def _size(_: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and _bytes(value, attribute.name) < 1:
        raise ConfigError(f"{attribute.name} must be at least 1 byte, or None for no limit")


def count_or_none(_: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a field is a number of things, or ``None``."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(
            f"{attribute.name} must be a whole number from 1 up, or None for no limit, not {value!r}"
        )


def _cpus(_: object, attribute: Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.01 <= value <= 1e6:
        raise ConfigError(
            f"{attribute.name} must be a number of processors from 0.01 up, or None for no limit, not {value!r}"
        )


def _bytes(value: Any, name: str) -> int:
    """Return a size in bytes.

    Raises:
        ConfigError: The value is not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ConfigError(
            f"{name} must be a size such as 512MB or 1.5GiB, a number of bytes, or None for no "
            f"limit, not {type(value).__name__}"
        )
    try:
        return parse_size(value)
    except ValueError as exc:
        raise ConfigError(f"{name}: {exc}") from None


@frozen(kw_only=True)
class Limits:
    """How much of the host a program may use. ``None`` in any field means no limit.

    Sizes are texts such as ``512MB`` or ``1.5GiB`` (powers of 1024), or bytes.

    If this process can make a control group, memory, processes and processors are bounded for the
    program and everything that it starts together, and its error names the limit that it reached.
    Otherwise anyspawn sets the kernel's resource limits: memory is bounded for each process by
    itself, without shared memory; processes are bounded unless the host is root; a program uses as
    many processors as the limit, rounded up. ``anyspawn doctor`` says which of the two applies.

    Args:
        memory: Memory. Default 2 GiB.
        processes: Processes and threads. Default 512.
        cpu: Processors; a fraction is possible. Default: no limit.
        tmp: The size of the sandbox's private folders, which are in memory. Default 512 MiB.
        files: Open files of a process. Default 1024.
        file_size: The largest file that it can write. Default 2 GiB.

    Raises:
        ConfigError: A field is wrong; the message names it.
    """

    memory: Size = field(default="2GiB", validator=_size)
    processes: int | None = field(default=512, validator=count_or_none)
    cpu: float | None = field(default=None, validator=_cpus)
    tmp: Size = field(default="512MiB", validator=_size)
    files: int | None = field(default=1024, validator=count_or_none)
    file_size: Size = field(default="2GiB", validator=_size)

    def bytes_of(self, name: str) -> int | None:
        """Return a size in bytes, or ``None`` for no limit."""
        value = getattr(self, name)
        return None if value is None else _bytes(value, name)


def limits_or_none(_: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a sandbox's field is a `Limits`, or ``None``."""
    if value is not None and not isinstance(value, Limits):
        raise ConfigError(f"{attribute.name} must be Limits or None, not {type(value).__name__}")
