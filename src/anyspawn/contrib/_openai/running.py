"""Two ways to run a program in a session's box: in a terminal, or with one stream of output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio

import anyspawn

__all__ = ["Take", "run", "run_in_terminal"]

Take = Callable[[str, bytes], None]
"""Gets the name of a stream, and a chunk of it."""


async def run(box: anyspawn.Box, argv: Sequence[str], take: Take, **fields: Any) -> int:
    """Run it, and return its status; processes that it leaves run until the box ends."""
    done = await box.spawn(
        argv,
        timeout=None,
        merge_stderr=True,
        on_output=take,
        output_limit=4096,
        overflow="tail",
        leave="detached",
        **fields,
    )
    return done.check().returncode or 0 if done.returncode is None else done.returncode


async def run_in_terminal(
    box: anyspawn.Box, argv: Sequence[str], take: Take, typed: asyncio.Queue[str], **fields: Any
) -> int:
    """Run it in a terminal with ``typed`` as input, and return its status; kill what it started."""
    async with box.open_process(argv, tty=True, **fields) as process:
        typing = asyncio.create_task(_type(process, typed))
        try:
            async for chunk in process.stdout:
                take("stdout", chunk)
            return await process.wait()
        finally:
            typing.cancel()


async def _type(process: anyspawn.Process, typed: asyncio.Queue[str]) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it has ended
        while True:
            await process.stdin.send((await typed.get()).encode())
