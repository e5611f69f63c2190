"""Programs on this host, and in `Bubblewrap`."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence, Sized
from typing import Any

import anyio

from anyspawn import Bubblewrap, Direct, spawn
from benchmarks.peer import (
    ASYNCIO,
    EVERY_LOOP,
    GIB,
    KEPT,
    Call,
    Peer,
    Place,
    Target,
    command_line,
    in_thread,
    peer,
    sandboxed,
)

OURS = ("--args", "--json-status-fd", "--add-seccomp-fd", "--block-fd")
"""Options of bwrap with a descriptor that anyspawn holds."""


async def by_run_process(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
    with anyio.fail_after(timeout):
        return (await anyio.run_process(list(argv), input=stdin)).stdout


async def by_asyncio(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        return (await asyncio.wait_for(process.communicate(stdin), timeout))[0]
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


async def by_trio(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
    import trio

    try:
        with trio.fail_after(timeout):
            done = await trio.run_process(
                list(argv), stdin=stdin, capture_stdout=True, capture_stderr=True
            )
    except trio.TooSlowError:
        raise TimeoutError from None
    return bytes(done.stdout)


@contextlib.asynccontextmanager
async def thread(_: Target) -> AsyncIterator[Call]:
    places = anyio.CapacityLimiter(64)

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        def run() -> bytes:
            return subprocess.run(
                argv, input=stdin, capture_output=True, check=True, timeout=timeout
            ).stdout

        return await in_thread(run, timeout + 60, places)

    yield call


@contextlib.asynccontextmanager
async def inspect_ai(_: Target) -> AsyncIterator[Call]:
    from inspect_ai.util import subprocess as run

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        options: dict[str, Any] = {
            "text": False,
            "input": stdin,
            "timeout": round(timeout),
            "concurrency": False,
        }
        return bytes((await run(list(argv), **options)).stdout)

    yield call


@contextlib.asynccontextmanager
async def llm_sandbox(_: Target) -> AsyncIterator[Call]:
    """A session runs one command at a time, and its limit is one for all commands: each call has
    its own.
    """
    from llm_sandbox import SandboxSession
    from llm_sandbox.exceptions import SandboxTimeoutError

    places = anyio.CapacityLimiter(64)

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        options: dict[str, Any] = {
            "lang": "python",
            "skip_environment_setup": True,
            "execution_timeout": timeout,
        }

        def run() -> str:
            with SandboxSession(backend="bubblewrap", **options) as session:
                return str(session.execute_command(shlex.join(argv)).stdout)

        try:
            return await in_thread(run, timeout + 60, places)
        except SandboxTimeoutError:
            raise TimeoutError from None

    yield call


@contextlib.asynccontextmanager
async def bwrap(_: Target) -> AsyncIterator[Call]:
    """Run bwrap alone with the very mounts of a `Bubblewrap`, without its variables, filter of
    system calls, limits and guards.
    """
    async with Bubblewrap() as sandbox:
        argv = iter((await spawn(["true"], sandbox=sandbox)).runner_argv[:-1])
        prefix = []
        for part in argv:
            if part in OURS:
                next(argv)
            else:
                prefix.append(part)
        async with command_line(lambda _: prefix, "").connect(_) as call:
            yield call


@contextlib.contextmanager
def here(run: str) -> Iterator[Target]:
    yield Target(run=run)


def nothing(run: str) -> None:
    """Leave the host alone: what was started there ends with the process that started it."""


LOCAL = Place(
    name="local",
    title="On this host",
    start=here,
    clean=nothing,
    loops=EVERY_LOOP,
    widths=(1, 4, 16, 32, 64),
    output=GIB,
    budget=80.0,
    peers=(
        peer("anyio.run_process", by_run_process),
        sandboxed("anyspawn Direct", Direct, lambda _: {}),
        peer("asyncio + communicate", by_asyncio, loops=ASYNCIO),
        peer("trio.run_process", by_trio, loops=("trio",)),
        Peer(name="subprocess.run in a thread", connect=thread),
        Peer(name="inspect-ai subprocess", connect=inspect_ai, loops=("asyncio", "trio")),
    ),
)

BUBBLEWRAP = Place(
    name="bubblewrap",
    title="In bubblewrap",
    start=here,
    clean=nothing,
    budget=45.0,
    peers=(
        Peer(name="bwrap, the same mounts", connect=bwrap),
        sandboxed("anyspawn Bubblewrap", Bubblewrap, lambda _: {}),
        sandboxed("anyspawn Bubblewrap(resident=8)", Bubblewrap, lambda _: KEPT),
        Peer(name="llm-sandbox, bubblewrap", connect=llm_sandbox, stdin="none", loops=("asyncio",)),
    ),
)
