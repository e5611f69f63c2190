"""Programs in docker: in a container that runs already, and in a fresh one each."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence, Sized
from typing import Any

import anyio

from anyspawn import DockerExec, DockerRun
from benchmarks.peer import (
    KEPT,
    Call,
    NotHereError,
    Peer,
    Place,
    Target,
    command_line,
    in_thread,
    sandboxed,
)

IMAGE = "busybox"
LABEL = "anyspawn-bench"


def docker(*args: str) -> str:
    try:
        done = subprocess.run(
            ["docker", *args], capture_output=True, text=True, timeout=60, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise NotHereError(f"docker does not work here: {error}") from None
    if done.returncode:
        raise NotHereError(f"docker {args[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def label(target: Target) -> str:
    return f"{LABEL}={target.run}"


@contextlib.contextmanager
def image(run: str) -> Iterator[Target]:
    if not docker("images", "-q", IMAGE):
        raise NotHereError(f"the image {IMAGE} is not here: docker pull {IMAGE}")
    yield Target(run=run, name=IMAGE)


@contextlib.contextmanager
def container(run: str) -> Iterator[Target]:
    with image(run) as about:
        target = Target(run=run, name=f"{LABEL}-{run}")
        docker(
            "run",
            "-d",
            "--init",
            "--name",
            target.name,
            "--label",
            label(target),
            about.name,
            "sleep",
            "3600",
        )
        yield target


def clean(run: str) -> None:
    found = docker("ps", "-aq", "--filter", f"label={LABEL}={run}").split()
    if found:
        docker("rm", "-f", "-v", *found)


@contextlib.asynccontextmanager
async def docker_py_exec(target: Target) -> AsyncIterator[Call]:
    from docker import from_env

    client = from_env(max_pool_size=64)
    box, places = client.containers.get(target.name), anyio.CapacityLimiter(64)

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        return bytes((await in_thread(lambda: box.exec_run(list(argv)), timeout, places)).output)

    yield call
    client.close()


@contextlib.asynccontextmanager
async def docker_py_run(target: Target) -> AsyncIterator[Call]:
    from docker import from_env

    client, places = from_env(max_pool_size=64), anyio.CapacityLimiter(64)
    options: dict[str, Any] = {"remove": True, "labels": {LABEL: target.run}}

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        def run() -> bytes:
            return bytes(client.containers.run(target.name, list(argv), **options))

        return await in_thread(run, timeout, places)

    yield call
    client.close()


@contextlib.asynccontextmanager
async def aiodocker_exec(target: Target) -> AsyncIterator[Call]:
    from aiodocker import Docker

    async with Docker() as client:
        box = await client.containers.get(target.name)

        async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
            async with asyncio.timeout(timeout):
                execution = await box.exec(list(argv), stdin=bool(stdin))
                out = bytearray()
                async with execution.start(detach=False) as stream:
                    if stdin:
                        await stream.write_in(stdin)
                    while message := await stream.read_out():
                        out += message.data
                await execution.inspect()  # the status, which the other ways have in their answer
                return out

        yield call


@contextlib.asynccontextmanager
async def aiodocker_run(target: Target) -> AsyncIterator[Call]:
    from aiodocker import Docker

    async with Docker() as client:

        async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
            about = {"Image": target.name, "Cmd": list(argv), "Labels": {LABEL: target.run}}
            box = await client.containers.run(about)
            try:
                async with asyncio.timeout(timeout):
                    await box.wait()
                    return "".join(await box.log(stdout=True))
            finally:
                await box.delete(force=True)

        yield call


@contextlib.asynccontextmanager
async def whales_exec(target: Target) -> AsyncIterator[Call]:
    from python_on_whales import DockerClient

    client, places = DockerClient(), anyio.CapacityLimiter(64)

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        return str(
            await in_thread(lambda: client.execute(target.name, list(argv)), timeout, places)
        )

    yield call


@contextlib.asynccontextmanager
async def whales_run(target: Target) -> AsyncIterator[Call]:
    from python_on_whales import DockerClient

    client, places = DockerClient(), anyio.CapacityLimiter(64)
    options: dict[str, Any] = {"remove": True, "labels": {LABEL: target.run}}

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        return str(
            await in_thread(lambda: client.run(target.name, list(argv), **options), timeout, places)
        )

    yield call


@contextlib.asynccontextmanager
async def llm_sandbox_exec(target: Target) -> AsyncIterator[Call]:
    from llm_sandbox import SandboxSession

    from docker import from_env

    places, client = anyio.CapacityLimiter(64), from_env(max_pool_size=64)
    options: dict[str, Any] = {
        "lang": "python",
        "container_id": target.name,
        "skip_environment_setup": True,
    }
    with SandboxSession(backend="docker", client=client, **options) as session:

        async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
            return str(
                (
                    await in_thread(
                        lambda: session.execute_command(shlex.join(argv)), timeout, places
                    )
                ).stdout
            )

        yield call


@contextlib.asynccontextmanager
async def llm_sandbox_run(target: Target) -> AsyncIterator[Call]:
    from llm_sandbox import SandboxSession

    from docker import from_env

    places, client = anyio.CapacityLimiter(64), from_env(max_pool_size=64)
    options: dict[str, Any] = {
        "lang": "python",
        "image": target.name,
        "skip_environment_setup": True,
    }
    options["runtime_configs"] = {"labels": {LABEL: target.run}}

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        def run() -> str:
            with SandboxSession(backend="docker", client=client, **options) as session:
                return str(session.execute_command(shlex.join(argv)).stdout)

        return await in_thread(run, timeout, places)

    yield call


def fresh(target: Target, **more: Any) -> dict[str, Any]:
    return {"image": target.name, "extra_args": (f"--label={label(target)}",), **more}


EXEC = Place(
    name="docker_exec",
    title="In a running container",
    start=container,
    clean=clean,
    budget=170.0,
    peers=(
        command_line(lambda target: ["docker", "exec", "-i", target.name], "docker exec"),
        sandboxed(
            "anyspawn DockerExec(resident=0)",
            DockerExec,
            lambda target: {"container": target.name, "resident": 0},
        ),
        sandboxed(
            "anyspawn DockerExec(resident=8)",
            DockerExec,
            lambda target: {"container": target.name, **KEPT},
        ),
        Peer(name="docker-py", connect=docker_py_exec, stdin="none", loops=("asyncio",)),
        Peer(name="aiodocker", connect=aiodocker_exec, stdin="open", loops=("asyncio",)),
        Peer(name="python-on-whales", connect=whales_exec, stdin="none", loops=("asyncio",)),
        Peer(name="llm-sandbox", connect=llm_sandbox_exec, stdin="none", loops=("asyncio",)),
    ),
)

RUN = Place(
    name="docker_run",
    title="In a fresh container",
    start=image,
    clean=clean,
    widths=(1, 4, 16),
    rest=1.0,
    budget=240.0,
    output=0,
    peers=(
        command_line(
            lambda target: ["docker", "run", "--rm", "-i", "--label", label(target), target.name],
            "docker run --rm",
        ),
        sandboxed("anyspawn DockerRun", DockerRun, fresh),
        sandboxed(
            "anyspawn DockerRun(resident=1)",
            DockerRun,
            lambda target: fresh(target, resident=1),
            settle=1.0,
        ),
        sandboxed(
            "anyspawn DockerRun(resident=8)",
            DockerRun,
            lambda target: fresh(target, **KEPT),
            settle=4.0,
        ),
        Peer(name="docker-py", connect=docker_py_run, stdin="none", loops=("asyncio",)),
        Peer(name="aiodocker", connect=aiodocker_run, stdin="none", loops=("asyncio",)),
        Peer(name="python-on-whales", connect=whales_run, stdin="none", loops=("asyncio",)),
        Peer(name="llm-sandbox", connect=llm_sandbox_run, stdin="none", loops=("asyncio",)),
    ),
)
