"""The calls of a soak: the sandboxes and how often each, what programs do and how often, and how
each has to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from attrs import field, frozen

from anyspawn import (
    Bubblewrap,
    Direct,
    DockerExec,
    DockerRun,
    KubectlExec,
    KubectlRun,
    Sandbox,
    SpawnError,
    spawn,
)
from benchmarks.containers import label
from benchmarks.peer import Target

KIB = b"x" * 1024
TIMEOUT, WAIT_DELAY, LIMIT = 0.4, 0.1, 64 * 1024
_LONG = 120.0


@frozen(kw_only=True)
class Way:
    """A sandbox in the mixture.

    Args:
        share: How often, beside the others.
        place: The place whose target it has.
        make: Makes it.
    """

    name: str
    share: float
    place: str
    make: Callable[[Target], Sandbox] = field(repr=False)

    @contextlib.asynccontextmanager
    async def open(self, target: Target) -> AsyncIterator[Sandbox]:
        """Hold it open; a `TypeError` says that it does not have such a field."""
        sandbox: Any = self.make(target)
        async with contextlib.AsyncExitStack() as stack:
            if hasattr(sandbox, "__aenter__"):
                await stack.enter_async_context(sandbox)
            yield sandbox


def _way(name: str, share: float, place: str, kind: Callable[..., Sandbox], **fields: Any) -> Way:
    """Return a way; a field that is a function is called with the target."""

    def make(target: Target) -> Sandbox:
        return kind(
            **{key: value(target) if callable(value) else value for key, value in fields.items()}
        )

    return Way(name=name, share=share, place=place, make=make)


def _name(target: Target) -> str:
    return target.name


def _namespace(target: Target) -> str:
    return target.namespace


def _labelled(target: Target) -> tuple[str, ...]:
    return (f"--label={label(target)}",)


_BOX: dict[str, Any] = {"container": _name}
_POD: dict[str, Any] = {"pod": _name, "namespace": _namespace}
_FRESH: dict[str, Any] = {"image": _name, "extra_args": _labelled}

WAYS = (
    _way("Direct", 60, "local", Direct),
    _way("Bubblewrap", 30, "local", Bubblewrap),
    _way("Bubblewrap(resident=4)", 20, "local", Bubblewrap, resident=4),
    _way("DockerExec", 3, "docker_exec", DockerExec, resident=0, **_BOX),
    _way("DockerExec(resident=4)", 20, "docker_exec", DockerExec, **_BOX, resident=4),
    _way("DockerRun", 0.6, "docker_run", DockerRun, **_FRESH),
    _way("DockerRun(resident=4)", 0.6, "docker_run", DockerRun, **_FRESH, resident=4),
    _way("KubectlExec", 1.5, "kubectl_exec", KubectlExec, resident=0, **_POD),
    _way("KubectlExec(resident=4)", 10, "kubectl_exec", KubectlExec, **_POD, resident=4),
    _way("KubectlRun", 0.1, "kubectl_run", KubectlRun, image=_name, namespace=_namespace),
)


@frozen(kw_only=True)
class Kind:
    """What a program does, or is done to it.

    Args:
        share: How often, beside the others.
        argv: The program; ``{sleep}`` stands for the number of seconds by which the run's programs
            are known.
        ends: How it has to end: ``ok``, or the name of an error.
        options: For `spawn`.
        cancel: How it is cancelled, after at most so many seconds.
    """

    name: str
    share: float
    argv: tuple[str, ...]
    ends: tuple[str, ...] = ("ok",)
    options: dict[str, Any] = field(factory=dict)
    cancel: str = ""


class _OwnError(Exception):
    """What a callback raises."""


def _refuse(_: str, __: bytes) -> None:
    raise _OwnError


_STUBBORN = ("sh", "-c", "sleep {sleep} & setsid sleep {sleep} & sleep {sleep}")
_NOISY = ("head", "-c", "262144", "/dev/zero")
KINDS = (
    Kind(name="cat", share=50, argv=("cat",)),
    Kind(name="exit 3", share=10, argv=("sh", "-c", "exit 3"), ends=("ExitError",)),
    Kind(
        name="signal",
        share=4,
        argv=("sh", "-c", "kill -9 $$; sh -c 'kill -9 $$'; exit $?"),
        ends=("ExitError",),
    ),
    Kind(name="no such program", share=5, argv=("/no/such/program",), ends=("NotStartedError",)),
    Kind(
        name="timeout",
        share=5,
        argv=_STUBBORN,
        ends=("SpawnTimeoutError",),
        options={"timeout": TIMEOUT},
    ),
    Kind(name="cancelled", share=8, argv=_STUBBORN, ends=("cancelled",), cancel="scope"),
    Kind(name="task cancelled", share=5, argv=_STUBBORN, ends=("cancelled",), cancel="task"),
    Kind(
        name="overflow",
        share=3,
        argv=_NOISY,
        ends=("OutputLimitError",),
        options={"output_limit": LIMIT},
    ),
    Kind(
        name="truncated",
        share=3,
        argv=_NOISY,
        options={"output_limit": LIMIT, "overflow": "truncate"},
    ),
    Kind(
        name="callback raises",
        share=3,
        argv=("echo", "x"),
        ends=("_OwnError",),
        options={"on_output": _refuse},
    ),
    Kind(name="stdout held", share=4, argv=("sh", "-c", "sleep {sleep} & echo done")),
)


async def perform(kind: Kind, sandbox: Sandbox, sleep: int, rng: random.Random) -> str:
    """Make a call; return ``ok``, ``cancelled``, the name of its error, or what was wrong with its
    output.
    """
    argv = [word.format(sleep=sleep) for word in kind.argv]
    given: dict[str, Any] = {
        "timeout": _LONG,
        "wait_delay": WAIT_DELAY,
        "stdin": KIB,
        "check": True,
        **kind.options,
    }
    after = rng.uniform(0, TIMEOUT)

    async def call() -> str:
        done = await spawn(argv, sandbox=sandbox, **given)
        return (
            "ok"
            if kind.name != "cat" or done.stdout == KIB
            else f"{len(done.stdout)} bytes came back"
        )

    try:
        if not kind.cancel:
            return await call()
        if kind.cancel == "task" and anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            return await _cancel_task(call, after)
        with anyio.move_on_after(after):
            return await call()
    except SpawnError as error:
        return type(error).__name__ + (
            f": {error}" if type(error).__name__ not in kind.ends else ""
        )
    except Exception as error:
        return type(error).__name__
    return "cancelled"


async def _cancel_task(call: Callable[[], Any], after: float) -> str:
    """Cancel it as asyncio's own programs do, and not by a scope."""
    task = asyncio.ensure_future(call())
    await anyio.sleep(after)
    task.cancel()
    try:
        return str(await task)
    except asyncio.CancelledError:
        return "cancelled"
