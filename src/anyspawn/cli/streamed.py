"""A call with streamed stdin, for modes in which the program cannot inherit this command's
stdin.
"""

from __future__ import annotations

from contextlib import suppress
from inspect import isawaitable

import anyio
import attrs

from anyspawn import (
    ArgvSandbox,
    Command,
    Completed,
    OutputLimitError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn._spawn.live import Process
from anyspawn.cli.streams import Reader, StreamError

__all__ = ["spawn_streamed"]

_STREAMS = ("stdout", "stderr")


async def spawn_streamed(sandbox: ArgvSandbox, command: Command, reader: Reader) -> Completed:
    """Run ``command`` as `ArgvSandbox.spawn` does, with the bytes of ``reader`` as its stdin.

    Raises:
        StreamError: The program's output could not be passed on.
    """
    streamed = _Streamed(command, reader)
    began = anyio.current_time()
    try:
        async with sandbox.open_process(command) as process:
            await streamed.attend(process, began)
    except SpawnError as exc:
        if exc.completed is None:
            raise
        return exc.completed
    if streamed.broken is not None:
        raise streamed.broken
    completed = process.completed
    assert completed is not None
    return streamed.outcome(completed)


class _Streamed:
    def __init__(self, command: Command, reader: Reader) -> None:
        self.broken: StreamError | None = None
        self._command = command
        self._reader = reader
        self._kept = {name: bytearray() for name in _STREAMS}
        self._totals = dict.fromkeys(_STREAMS, 0)
        self._error: SpawnError | None = None

    async def attend(self, process: Process, began: float) -> None:
        """Move data until the program has exited or must be killed."""
        command = self._command
        assert isinstance(command.timeout, (int, float))
        program = command.argv[0]
        with anyio.CancelScope(deadline=began + command.timeout) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._give, process)
                async with anyio.create_task_group() as outputs:
                    for name in _STREAMS:
                        outputs.start_soon(self._take, process, name, group.cancel_scope)
                    with suppress(TransportError, anyio.ClosedResourceError):
                        await process.wait()
                    outputs.cancel_scope.deadline = anyio.current_time() + command.wait_delay
                group.cancel_scope.cancel()
        if scope.cancelled_caught:
            said = f"{program!r} timed out after {command.timeout:g} s and was killed"
            self._error = SpawnTimeoutError(said)

    async def _give(self, process: Process) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while data := await self._reader.read():
                await process.stdin.send(data)
            await process.stdin.aclose()

    async def _take(self, process: Process, name: str, group: anyio.CancelScope) -> None:
        source = process.stdout if name == "stdout" else process.stderr
        command, kept = self._command, self._kept[name]
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await source.receive()
                self._totals[name] += len(data)
                kept += data[: command.output_limit - len(kept)]
                if not await self._passed_on(name, data):
                    group.cancel()
                if command.overflow == "error" and self._totals[name] > command.output_limit:
                    said = f"{command.argv[0]!r} wrote more than {command.output_limit} bytes"
                    self._error = OutputLimitError(f"{said} to {name}, and was killed")
                    group.cancel()

    async def _passed_on(self, name: str, data: bytes) -> bool:
        if self._command.on_output is None:
            return True
        try:
            waiting = self._command.on_output("stdout" if name == "stdout" else "stderr", data)
            if isawaitable(waiting):
                await waiting
        except StreamError as exc:
            self.broken = exc
            return False
        return True

    def outcome(self, completed: Completed) -> Completed:
        """Return the outcome with the output that was moved."""
        return attrs.evolve(
            completed,
            error=self._error or completed.error,
            stdout=bytes(self._kept["stdout"]),
            stderr=bytes(self._kept["stderr"]),
            stdout_total=self._totals["stdout"],
            stderr_total=self._totals["stderr"],
        )
