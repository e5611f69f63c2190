"""The values to measure: places to run programs in, and the peers that can run them there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Sized
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

import anyio
import anyio.to_thread
from attrs import field, frozen

from anyspawn import Sandbox, spawn

GIB = 2**30
T = TypeVar("T")
Loop = Literal["asyncio", "uvloop", "trio"]
EVERY_LOOP: tuple[Loop, ...] = ("asyncio", "uvloop", "trio")
ASYNCIO: tuple[Loop, ...] = ("asyncio", "uvloop")

Call = Callable[[Sequence[str], bytes, float], Awaitable[Sized]]
"""Runs argv with the stdin for at most so many seconds; returns its stdout."""


class Held(Protocol):
    """A box: runs programs, and keeps files from one call to the next."""

    async def __call__(self, argv: Sequence[str], stdin: bytes, timeout: float, /) -> Sized: ...

    async def write(self, name: str, data: bytes) -> None: ...

    async def read(self, name: str) -> bytes: ...


class NotHereError(Exception):
    """A peer or a place that cannot be measured on this machine; its text says why."""


@frozen(kw_only=True)
class Target:
    """Where programs run.

    Args:
        run: The run's name; whatever it makes bears it, so that it can be found and removed.
        name: The container, the pod or the image. Default: none, the host itself.
        namespace: The pod's namespace.
    """

    run: str
    name: str = ""
    namespace: str = ""


@frozen(kw_only=True)
class Peer:
    """A way to run programs.

    Args:
        name: What the report calls it.
        connect: What holds it open for many calls.
        stdin: Whether a program's stdin can be given and closed, given but not closed, or not given
            at all.
        loops: The event loops that it runs on.
        settle: Seconds after its turn in which it makes ready for the next one, and no other peer
            has its own.
    """

    name: str
    connect: Callable[[Target], AbstractAsyncContextManager[Call]] = field(repr=False)
    stdin: Literal["closed", "open", "none"] = "closed"
    loops: tuple[Loop, ...] = EVERY_LOOP
    settle: float = 0.0


@frozen(kw_only=True)
class Place:
    """A kind of place, and the peers there; the first is what the others are measured against.

    Args:
        start: Makes a target for a run, and ends it.
        clean: Removes whatever bears the run's name, also after a crash.
        widths: How many calls are in flight, one measurement after the other.
        rest: Seconds between calls that are made apart, and before a burst of them; 0: neither is
            measured.
        output: How many bytes the program with large output writes; 0: none is run.
        files: The sizes of files that are written and read; the peers are boxes (`Held`) then, and
            their start and end is measured. Default: none.
        budget: After how many seconds no further round begins, on the first loop; later ones have a
            third of it each.
        patience: The timeout in the cases of behaviour, in seconds.
        slow: A peer whose single call takes longer than so many seconds is measured one call at a
            time, in one round.
    """

    name: str
    title: str
    start: Callable[[str], AbstractContextManager[Target]] = field(repr=False)
    clean: Callable[[str], None] = field(repr=False)
    peers: tuple[Peer, ...] = field(repr=False)
    loops: tuple[Loop, ...] = ("asyncio", "trio")
    widths: tuple[int, ...] = (1, 4, 16, 64)
    rest: float = 0.0
    output: int = 64 * 2**20
    files: tuple[int, ...] = ()
    budget: float = 100.0
    patience: float = 2.0
    slow: float = 3.0


KEPT: dict[str, Any] = {"resident": 8, "idle_timeout": 3600}
"""Residents that stay while other peers have their turn, as those of a program that calls all the
time do.
"""


def peer(name: str, call: Call, **options: Any) -> Peer:
    """Return a peer that holds nothing open."""

    @contextlib.asynccontextmanager
    async def connect(_: Target) -> AsyncIterator[Call]:
        yield call

    return Peer(name=name, connect=connect, **options)


def sandboxed(
    name: str,
    kind: Callable[..., Sandbox],
    fields: Callable[[Target], dict[str, Any]],
    **options: Any,
) -> Peer:
    """Return a peer that is one of anyspawn's sandboxes; fields that it does not have (yet) are
    said to be missing.
    """

    @contextlib.asynccontextmanager
    async def connect(target: Target) -> AsyncIterator[Call]:
        try:
            sandbox = kind(**fields(target))
        except TypeError as error:
            raise NotHereError(not_yet(error)) from None

        async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
            options: dict[str, Any] = {"stdin": stdin, "timeout": timeout, "output_limit": 2 * GIB}
            return (await spawn(argv, sandbox=sandbox, check=True, **options)).stdout

        async with contextlib.AsyncExitStack() as stack:
            if isinstance(sandbox, AbstractAsyncContextManager):
                await stack.enter_async_context(sandbox)
            yield call

    return Peer(name=name, connect=connect, **options)


def not_yet(error: TypeError) -> str:
    """Return which field this version of a sandbox does not have; raise what has another cause."""
    if "unexpected keyword argument" not in str(error):
        raise error
    _, name, _ = str(error).split("'")
    return f"this version of anyspawn does not have `{name}`"


def command_line(prefix: Callable[[Target], list[str]], name: str) -> Peer:
    """Return a peer that is a bare command line, started by `anyio.run_process`; it is killed on a
    timeout.
    """

    @contextlib.asynccontextmanager
    async def connect(target: Target) -> AsyncIterator[Call]:
        async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
            with anyio.fail_after(timeout):
                return (await anyio.run_process([*prefix(target), *argv], input=stdin)).stdout

        yield call

    return Peer(name=name, connect=connect)


async def in_thread(work: Callable[[], T], timeout: float, places: anyio.CapacityLimiter) -> T:
    """Call a blocking library as an async program has to; it cannot be interrupted, only left
    behind.
    """
    with anyio.fail_after(timeout):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=places)
