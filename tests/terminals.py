"""Checks of programs with a terminal, shared by the tests of each mode."""

from __future__ import annotations

import anyio
import pytest

import anyspawn
from anyspawn import Cleanup

SCRIPT = """
test -t 0 && test -t 1 && test -t 2 && : <>/dev/tty && stty size && echo error >&2
cat
echo over
trap 'echo caught; exit 3' INT
stty size
echo ready
while :; do sleep 0.01; done
"""


async def until(process, word):
    """Return what the terminal shows, up to a word."""
    said = b""
    with anyio.fail_after(60):
        while word not in said:
            said += await process.stdout.receive()
    return said


async def drive(sandbox):
    """A terminal echoes, edits lines, interrupts, ends input, and has a size."""
    async with anyspawn.open_process(["sh", "-c", SCRIPT], sandbox=sandbox, tty=True) as process:
        assert await until(process, b"error\r\n") == b"24 80\r\nerror\r\n"
        await process.stdin.send(b"helx\x7flo\n")
        assert (await until(process, b"\r\nhello\r\n")).startswith(b"helx\b \blo\r\n")
        await process.resize(50, 132)
        await process.stdin.send(b"\x04")
        assert await until(process, b"ready\r\n") == b"over\r\n50 132\r\nready\r\n"
        await process.stdin.send(b"\x03")
        await until(process, b"caught\r\n")
        assert await process.wait() == 3
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive()
    assert process.completed.argv == ("sh", "-c", SCRIPT)
    assert str(process.completed.error) == "'sh' exited with status 3"
    assert process.completed.cleanup is not Cleanup.UNCONFIRMED
