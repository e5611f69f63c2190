"""How the stdin of a live program goes to its supervisor: a line for each chunk, and lines that say
more. Pure.
"""

from __future__ import annotations

import re

from anyspawn.supervisor._frames import printf_format

__all__ = ["BROKE", "CHUNK", "CLOSE", "RUNNING", "TAKEN", "TOOK", "line_of", "streaming"]

CHUNK = 16 * 1024
"""Bytes that a line stands for at most: the supervisor's shell reads it a byte at a time."""
CLOSE = b"-\n"
"""The line after the last chunk."""
TAKEN = b".\n"
"""The line with which the caller answers `TOOK` and `BROKE`, upon which the shell forgets the
process that wrote the chunk.
"""
TOOK, BROKE = "took", "broke"
"""The frames that say that a chunk was written to the program, or that the program reads no more.
"""
RUNNING = "running"
"""The frame that says that the program has taken the shell's place."""

_HEAD = re.compile(rb"^([0-9a-f]+ [0-9a-f]+ [0-9]+ [0-9]+) 0$", re.MULTILINE)


def streaming(head: bytes) -> bytes:
    """Return the head of a command whose stdin is streamed, made of that of one that has none."""
    return _HEAD.sub(rb"\1 -", head, count=1)


def line_of(chunk: bytes) -> bytes:
    """Return the line that stands for a chunk: a format for ``printf``, which neither `CLOSE` nor
    `TAKEN` can be.
    """
    return printf_format(chunk) + b"\n"
