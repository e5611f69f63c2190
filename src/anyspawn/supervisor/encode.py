"""The messages to a supervisor, as bytes: a command's head, a resident's tasks, chunks. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from anyspawn.exceptions import ConfigError

__all__ = [
    "CHUNK",
    "CLOSE",
    "SHORT",
    "call_line",
    "check_name",
    "chunk_line",
    "head",
    "printf_format",
    "tag_of",
    "task_line",
]

SHORT = 4096
"""Bytes that every pipe takes. A resident's task contains a stdin of up to this size; a longer one
follows it.
"""
CHUNK = 64 * 1024
"""Bytes of a live program's stdin that are sent at once: as many as a pipe holds."""
CLOSE = b"-\n"
"""The line after the last chunk."""
_IN_A_LINE = 1024
"""The longest chunk that is a line: the shell reads it byte by byte, but starts no process."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = re.compile(rb"[^ -$&(-,/-\[\]-~]")
"""Bytes that a format must escape: % ' \\ and all but printable ASCII; also - and ., which have a
meaning if they are alone.
"""
_FORMAT = [
    b"\\%03o" % byte if _SPECIAL.match(bytes([byte])) else bytes([byte]) for byte in range(256)
]


def tag_of(call_id: str) -> int:
    """Return the tag that marks the processes of a call: a number from 1 to 2**50, made from its
    id.
    """
    return int(call_id[:13] or "0", 16) % 2**50 + 1


def head(
    call_id: str,
    nonce: str,
    env: Mapping[str, str],
    size: int | None,
    cwd: str | None = None,
    *,
    merge: bool = False,
    leaves: bool = False,
) -> bytes:
    """Return the line that a supervisor reads before the command's stdin.

    Args:
        call_id: The call's id.
        nonce: The random word of its frames.
        env: The command's variables.
        size: Bytes of stdin that follow. ``None``: stdin comes in chunks, see `chunk_line`.
        cwd: Where the command starts. Default: where the supervisor does.
        merge: The command's stderr goes to its stdout.
        leaves: Processes that it leaves run on until the supervisor's stdin is closed.
    """
    told = {
        "nonce": nonce,
        "id": call_id,
        "tag": tag_of(call_id),
        "size": "-" if size is None else size,
        "leaves": "yes" if leaves else "",
        "merge": "yes" if merge else "",
    }
    known = " ".join(f"_{name}={value}" for name, value in told.items())
    return b'%s; set -- %s "$@"\n' % (known.encode(), _words(cwd, env))


def check_name(name: str, instead: str) -> None:
    """Raise a `ConfigError` for a variable that a shell cannot pass on.

    Args:
        name: The variable.
        instead: The end of the message: how to pass it without a shell.
    """
    if name.startswith("ANYSPAWN_"):
        raise ConfigError(f"env: {name!r} is one of the supervisor's own names; use another")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"env: a shell cannot pass on {name!r}; use letters, digits and _{instead}"
        )


def task_line(
    argv: Sequence[str], env: Mapping[str, str], stdin: bytes, cwd: str | None = None
) -> bytes:
    """Return a resident's task, less what `call_line` adds.

    A stdin of more than `SHORT` bytes is not part of it: the resident asks for it.
    """
    short = len(stdin) <= SHORT
    format_or_size = b"'=%s'" % printf_format(stdin) if short else b"%d" % len(stdin)
    return b"%s\0%s\n" % (format_or_size, _words(cwd, env, argv))


def call_line(task: bytes, nonce: str, known: str = "", *, merge: bool = False) -> bytes:
    """Return the line by which a resident begins a command.

    Args:
        task: The result of `task_line`.
        nonce: The random word of the command's frames.
        known: ``yes``: the resident has executed the program before, any exec executes it, and
            arguments and variables are not near any limit, so that 126 and 127 are the program's
            own. ``ask``: the resident says whether any exec executes it.
        merge: The command's stderr goes to its stdout.
    """
    form, _, rest = task.partition(b"\0")
    first = b"_merge=yes; " if merge else b""
    return b"%srun %s %s '%s' %s" % (first, nonce.encode(), form, known.encode(), rest)


def chunk_line(chunk: bytes) -> bytes:
    """Return a chunk of a live program's stdin: a format for ``printf``, or . and its size, a line
    each, and the chunk itself after the latter.
    """
    if len(chunk) > _IN_A_LINE:
        return b".%d\n%s" % (len(chunk), chunk)
    return printf_format(chunk) + b"\n"


def printf_format(data: bytes) -> bytes:
    """Return ``data`` as a format for ``printf``: one line, without single quotes."""
    if data.isascii():  # text needs few escapes, and a search is faster
        return _SPECIAL.sub(lambda match: _FORMAT[match[0][0]], data)
    return b"".join([_FORMAT[byte] for byte in data])


def _words(cwd: str | None, env: Mapping[str, str], argv: Sequence[str] = ()) -> bytes:
    """Return a command as a shell's words, on one line: its directory, variables, arguments."""
    words = [cwd or "", *(f"{name}={value}" for name, value in env.items()), "", *argv]
    quoted = (
        b"'%s'" % word.encode(errors="surrogateescape").replace(b"'", b"'\\''") for word in words
    )
    return b" ".join(quoted).replace(b"\n", b"'\"$_nl\"'")
