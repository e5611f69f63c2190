"""A program that runs on in a session's box while a model reads its output."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from agents.sandbox import ExecTransportError
from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import clamp_pty_yield_time_ms

import anyspawn
from anyspawn.contrib._openai.running import run, run_in_terminal

__all__ = ["Program"]


class Program:
    """A task runs it, and keeps the newest 256 chunks of output since the last read.

    Attributes:
        typed: The input of its terminal; ``None``: it has no terminal.
        task: Returns its status.
    """

    def __init__(self, box: anyspawn.Box, argv: Sequence[str], *, tty: bool, **fields: Any) -> None:
        self.typed = asyncio.Queue[str]() if tty else None
        self._chunks, self._news = deque[bytes](maxlen=256), asyncio.Event()
        self.task = asyncio.create_task(self._run(box, argv, fields))
        self.task.add_done_callback(lambda _: self._news.set())

    async def _run(self, box: anyspawn.Box, argv: Sequence[str], fields: dict[str, Any]) -> int:
        try:
            if self.typed is None:
                return await run(box, argv, self._take, **fields)
            return await run_in_terminal(box, argv, self._take, self.typed, **fields)
        except anyspawn.SpawnError as exc:
            raise ExecTransportError(command=argv, message=str(exc), cause=exc) from exc

    def _take(self, _: str, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._news.set()

    async def look(self, seconds: float, most: int | None) -> Any:
        """Return its output, once it has exited or the time is up."""
        return await collect_pty_output(
            output_chunks=self._chunks,
            output_lock=asyncio.Lock(),
            output_notify=self._news,
            is_done=self.task.done,
            yield_time_ms=clamp_pty_yield_time_ms(int(1000 * seconds)),
            max_output_tokens=most,
        )
