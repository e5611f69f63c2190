"""What a supervisor is told, as bytes: a command's head, a resident's tasks, chunks. Pure."""

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
"""Bytes that any pipe takes: a stdin that is no longer is part of a resident's task, and a longer
one follows it.
"""
CHUNK = 64 * 1024
"""Bytes of a live program's stdin that are handed over at once: as many as a pipe holds."""
CLOSE = b"-\n"
"""The line after the last chunk."""
_IN_A_LINE = 1024
"""Bytes of a chunk that is a line: a shell reads it a byte at a time, but starts no process."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = re.compile(rb"[^ -$&(-,/-\[\]-~]")
"""What does not stand for itself in a format: % ' \\ and what is no printable ASCII; also - and .,
which are options and words of ours where they stand alone.
"""
_FORMAT = [
    b"\\%03o" % byte if _SPECIAL.match(bytes([byte])) else bytes([byte]) for byte in range(256)
]


def tag_of(call_id: str) -> int:
    """Return the number by which the processes of a call are known: 1 to 2**50, from its id."""
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
    """Return what the supervisor reads before the command's stdin.

    Args:
        call_id: The call's id.
        nonce: What its frames begin with; whoever does not know it cannot make one.
        env: The command's variables.
        size: How many bytes of stdin follow. ``None``: it comes in lines, one for each chunk.
        cwd: Where the command starts. Default: where the supervisor does.
        merge: The command's stderr is its stdout.
        leaves: What it leaves running stays until the supervisor's stdin ends.
    """
    lines = [b"ANYSPAWN_merge=yes"] if merge else []
    if cwd is not None:
        refuse = b'{ printf "%s nocwd\\036" "$ANYSPAWN_frame" >&2; exit 126; }'
        into = b"CDPATH= cd -- %s >/dev/null 2>&1 || %s; unset OLDPWD"
        lines.append(into % (_on_one_line(cwd), refuse))
    for name, value in env.items():
        lines.append(b"export %s=%s" % (name.encode(), _on_one_line(value)))
    size_or_lines = "-" if size is None else size
    first = f"{nonce} {call_id} {tag_of(call_id)} {len(lines)} {size_or_lines}".encode()
    first += b" yes" if leaves else b""
    return b"\n".join([first, *lines]) + b"\n"


def check_name(name: str, instead: str) -> None:
    """Refuse a variable's name that a shell cannot hand on.

    Args:
        name: The name.
        instead: What else may be done.

    Raises:
        ConfigError: It cannot.
    """
    if name.startswith("ANYSPAWN_"):
        raise ConfigError(f"env: {name!r} is one of the supervisor's own names; use another")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"env: a shell cannot hand on {name!r}; use letters, digits and _{instead}"
        )


def task_line(
    argv: Sequence[str], env: Mapping[str, str], stdin: bytes, cwd: str | None = None
) -> bytes:
    """Return what a resident is told of one command, but for what `call_line` adds.

    A stdin of more than `SHORT` bytes is not part of it, but follows when it is asked for.
    """
    short = len(stdin) <= SHORT
    format_or_size = b"'=%s'" % printf_format(stdin) if short else b"%d" % len(stdin)
    words = [cwd or "", *(f"{name}={value}" for name, value in env.items()), "", *argv]
    line = b" ".join(map(_quoted, words)).replace(b"\n", b"'\"$_nl\"'")
    return b"%s\0%s\n" % (format_or_size, line)


def call_line(task: bytes, nonce: str, known: str = "", *, merge: bool = False) -> bytes:
    """Return the line by which a resident begins a command.

    Args:
        task: What `task_line` returned.
        nonce: What the command's frames begin with.
        known: ``yes``: the program was executed there before, and any exec executes it, so that one
            that cannot be executed need not be told from one that returns 127; arguments and
            variables are not near any system's limit. ``ask``: have it said whether that is so.
        merge: The command's stderr is its stdout.
    """
    form, _, rest = task.partition(b"\0")
    first = b"_merge=yes; " if merge else b""
    return b"%srun %s %s '%s' %s" % (first, nonce.encode(), form, known.encode(), rest)


def chunk_line(chunk: bytes) -> bytes:
    """Return how a chunk is told: as a printf format, which ``.`` or `CLOSE` cannot begin, or as
    its number of bytes, and these.
    """
    if len(chunk) > _IN_A_LINE:
        return b".%d\n%s" % (len(chunk), chunk)
    return printf_format(chunk) + b"\n"


def printf_format(data: bytes) -> bytes:
    """Return what ``printf`` takes for ``data``: one line, and fit for single quotes."""
    if data.isascii():  # text has few, and is searched faster than it is put together
        return _SPECIAL.sub(lambda match: _FORMAT[match[0][0]], data)
    return b"".join([_FORMAT[byte] for byte in data])


def _quoted(value: str) -> bytes:
    """Return a text as a shell's word."""
    return b"'" + value.encode(errors="surrogateescape").replace(b"'", b"'\\''") + b"'"


def _on_one_line(value: str) -> bytes:
    """Return a text as a shell's word without a line break."""
    return _quoted(value).replace(b"\n", b"'\"$ANYSPAWN_n\"'")
