"""A large transfer through a stream to a port of a box, for the tests of each mode."""

from __future__ import annotations

import hashlib
import os

import anyio

import boxes

SIZE = 32 * 2**20
"""Bytes in each direction."""
MOST = 16 * 2**20
"""Bytes by which the host's memory may grow."""


def block(number):
    """Return 64 KiB that differ from every other block."""
    return number.to_bytes(8, "big") * 8192


def resident():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def much(box, python):
    """32 MiB go to an echo server and come back unchanged, without ever being in memory at once."""
    sent, got = hashlib.sha256(), hashlib.sha256()
    async with (
        box.open_process([python, "-c", boxes.SERVER]) as server,
        await box.connect(int(await server.stdout.receive())) as stream,
    ):

        async def send():
            await stream.send(b"E")
            for number in range(SIZE // 65536):
                data = block(number)
                sent.update(data)
                await stream.send(data)
            await stream.send_eof()

        before = most = resident()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            total, last = 0, b""
            async for data in stream:
                total += len(data)
                whole = last + data  # the echo server's "end" is not our data
                got.update(whole[:-3])
                last = whole[-3:]
                most = max(most, resident())
    assert (total, last) == (SIZE + 3, b"end")
    assert got.digest() == sent.digest()
    assert most - before < MOST
