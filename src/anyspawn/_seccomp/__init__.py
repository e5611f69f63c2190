"""The system call filters of `Bubblewrap`, compiled by ``tools/compile_filters.py``."""

from __future__ import annotations

import platform
from functools import cache
from importlib.resources import files

from anyspawn.exceptions import ConfigError

__all__ = ["filters"]

_INSTRUCTION = 8


def filters(seccomp: str, *, sees_host: bool) -> tuple[bytes, ...]:
    """Return the filters of a sandbox, each as the kernel takes it; none where this machine's
    processor has none.

    Args:
        seccomp: ``auto``, ``required``, or the path of a compiled filter to use instead.
        sees_host: Some of the host's files are in sight, among which may be sockets.

    Raises:
        ConfigError: A filter is required and there is none for this processor, or the file is not
            a filter.
    """
    if seccomp not in ("auto", "required"):
        return (_own(seccomp),)
    machine = platform.machine()
    found = _of(machine, "default")
    if found is None:
        if seccomp == "required":
            raise ConfigError(
                f"seccomp: there is no filter for a {machine} processor; name a compiled filter's "
                "path, or use 'auto' to go without"
            )
        return ()
    no_unix = _of(machine, "no_unix") if sees_host else None
    return (found,) if no_unix is None else (found, no_unix)


@cache
def _of(machine: str, name: str) -> bytes | None:
    file = files(__name__) / f"{name}.{machine}.bpf"
    return file.read_bytes() if file.is_file() else None


def _own(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError as exc:
        raise ConfigError(f"seccomp: the filter {path!r} cannot be read: {exc.strerror}") from None
    if not found or len(found) % _INSTRUCTION:
        raise ConfigError(
            f"seccomp: {path!r} is not a compiled filter, as seccomp_export_bpf of libseccomp "
            "writes it"
        )
    return found
