"""The programs that are run, and how many at once for how long."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from attrs import define, field, frozen

from benchmarks.peer import Call, Peer

KIB = b"x" * 1024
LONGEST = 60.0
"""The timeout of calls that are measured; a peer that hangs has failed then."""


@frozen(kw_only=True)
class Program:
    """A program, and how many bytes it has to give back."""

    argv: tuple[str, ...]
    size: int
    stdin: bytes = b""


def small(peer: Peer) -> Program:
    """Return 1 KiB through `cat`; where stdin cannot be closed or given at all, what comes nearest
    to it.
    """
    argv = {
        "closed": ("cat",),
        "open": ("head", "-c", "1024"),
        "none": ("head", "-c", "1024", "/dev/zero"),
    }[peer.stdin]
    return Program(argv=argv, stdin=b"" if peer.stdin == "none" else KIB, size=len(KIB))


def large(size: int) -> Program:
    """Return a program that writes so many bytes."""
    return Program(argv=("head", "-c", str(size), "/dev/zero"), size=size)


def stubborn(seconds: int) -> Program:
    """Return a program of three processes that do not end by themselves; one of them leaves the
    session.
    """
    script = f"sleep {seconds} & setsid sleep {seconds} & sleep {seconds}"
    return Program(argv=("sh", "-c", script), size=0)


def parent(seconds: int) -> Program:
    """Return a program that ends at once, and leaves a child that holds its stdout."""
    return Program(argv=("sh", "-c", f"sleep {seconds} & echo done"), size=5)


class WrongOutputError(Exception):
    """A peer that gave back something else than the program wrote."""


@define
class Cell:
    """What one peer did in one round of one case."""

    took: list[float] = field(factory=list)
    seconds: float = 0.0
    failed: str = ""

    @property
    def rate(self) -> float:
        return len(self.took) / self.seconds


async def once(call: Call, program: Program, timeout: float = LONGEST) -> float:
    """Run a program, look at the size of what came back, and return the seconds that it took."""
    began = time.perf_counter()
    out = await call(program.argv, program.stdin, timeout)
    took = time.perf_counter() - began
    if len(out) != program.size:
        raise WrongOutputError(f"{len(out)} bytes came back instead of {program.size}")
    return took


async def in_flight(call: Call, program: Program, width: int, seconds: float) -> Cell:
    """Keep so many calls in flight for so many seconds, and wait for the last ones."""
    cell = Cell()
    began = time.perf_counter()

    async def work() -> None:
        while True:
            cell.took.append(await once(call, program))
            if time.perf_counter() - began >= seconds:
                return

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(width):
                tasks.start_soon(work)
    except Exception as error:
        cell.failed = why(error)
    cell.seconds = time.perf_counter() - began
    return cell


async def repeated(work: Callable[[], Awaitable[None]], seconds: float) -> Cell:
    """Do something again and again for so many seconds, once at least."""
    cell = Cell()
    began = time.perf_counter()
    try:
        while not cell.took or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            await work()
            cell.took.append(time.perf_counter() - start)
    except Exception as error:
        cell.failed = why(error)
    cell.seconds = time.perf_counter() - began
    return cell


async def rested(call: Call, program: Program, turns: int, calls: int, seconds: float) -> Cell:
    """Rest for so many seconds before each turn of so many calls, one after the other; what these
    took is the cell's time.
    """
    cell = Cell()
    try:
        for _ in range(turns):
            await anyio.sleep(seconds)
            for _ in range(calls):
                cell.took.append(await once(call, program))
    except Exception as error:
        cell.failed = why(error)
    cell.seconds = sum(cell.took)
    return cell


def why(error: BaseException) -> str:
    """Return an error in a line; of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    words: Any = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:200].rstrip(": ")
