"""Boxes: places with files that stay from one call to the next, on this host and in docker."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from anyspawn import Bubblewrap, Direct, DockerRun, Sandbox, open_box
from benchmarks.containers import LABEL, clean, docker, label
from benchmarks.local import here, nothing
from benchmarks.peer import (
    GIB,
    NotHereError,
    Peer,
    Place,
    Target,
    command_line,
    in_thread,
)

IMAGE = "python:3-slim"
"""Has what each of the peers looks for inside."""
LONG = 300.0
SIZES = (1024, 64 * 2**20)


class AnyspawnBox:
    """One of ours."""

    def __init__(self, box: Any) -> None:
        self.box = box

    async def __call__(self, argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        return bytes((await self.box.spawn(argv, stdin=stdin, timeout=timeout, check=True)).stdout)

    async def write(self, name: str, data: bytes) -> None:
        await self.box.write_file(name, data)

    async def read(self, name: str) -> bytes:
        return bytes(await self.box.read_file(name, limit=2 * GIB))


def boxed(name: str, sandbox: Callable[[Target], Sandbox]) -> Peer:
    """Return a peer that is a box in one of anyspawn's sandboxes."""

    @contextlib.asynccontextmanager
    async def connect(target: Target) -> AsyncIterator[AnyspawnBox]:
        async with open_box(sandbox(target)) as box:
            yield AnyspawnBox(box)

    return Peer(name=name, connect=connect)


class InThread:
    """A blocking library, whose methods run in a thread."""

    def __init__(self) -> None:
        self.places = anyio.CapacityLimiter(64)

    async def thread(self, work: Callable[[], Any], timeout: float = LONG) -> Any:
        return await in_thread(work, timeout, self.places)


class LlmSandbox(InThread):
    """An llm-sandbox session, which copies files of this host."""

    def __init__(self, session: Any, folder: str) -> None:
        super().__init__()
        self.session = session
        self.folder = Path(folder)

    async def __call__(self, argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        command = shlex.join(argv)
        done = await self.thread(lambda: self.session.execute_command(command), timeout)
        return str(done.stdout)

    async def write(self, name: str, data: bytes) -> None:
        here = self.folder / f"in-{name}"

        def work() -> None:
            here.write_bytes(data)
            self.session.copy_to_runtime(str(here), f"/tmp/{name}")

        await self.thread(work)

    async def read(self, name: str) -> bytes:
        here = self.folder / f"out-{name}"

        def work() -> bytes:
            self.session.copy_from_runtime(f"/tmp/{name}", str(here))
            return here.read_bytes()

        return bytes(await self.thread(work))


def llm_sandbox(name: str, options: Callable[[Target], dict[str, Any]]) -> Peer:
    @contextlib.asynccontextmanager
    async def connect(target: Target) -> AsyncIterator[LlmSandbox]:
        from llm_sandbox import SandboxSession

        common = {"lang": "python", "skip_environment_setup": True}
        session = SandboxSession(**common, **options(target))
        with tempfile.TemporaryDirectory() as folder:
            box = LlmSandbox(session, folder)
            await box.thread(session.open)
            try:
                yield box
            finally:
                await box.thread(session.close)

    return Peer(name=name, connect=connect, stdin="none", loops=("asyncio",))


class Deepagents(InThread):
    """A backend of deepagents, which has a command's stdout and stderr as one text."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self.backend = backend

    async def __call__(self, argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        command, seconds = shlex.join(argv), math.ceil(timeout)
        done = await self.thread(
            lambda: self.backend.execute(command, timeout=seconds), timeout + 60
        )
        if done.exit_code == 124:
            raise TimeoutError
        return str(done.output)

    async def write(self, name: str, data: bytes) -> None:
        (done,) = await self.thread(lambda: self.backend.upload_files([(f"/{name}", data)]))
        if done.error:
            raise OSError(done.error)

    async def read(self, name: str) -> bytes:
        (done,) = await self.thread(lambda: self.backend.download_files([f"/{name}"]))
        if done.error:
            raise OSError(done.error)
        return bytes(done.content)


@contextlib.asynccontextmanager
async def deepagents_local(_: Target) -> AsyncIterator[Deepagents]:
    from deepagents.backends import LocalShellBackend

    with tempfile.TemporaryDirectory() as folder:
        yield Deepagents(LocalShellBackend(root_dir=folder, virtual_mode=True, inherit_env=True))


@contextlib.asynccontextmanager
async def deepagents_docker(target: Target) -> AsyncIterator[Deepagents]:
    """With as much of the machine as the others have."""
    from deepagents_docker import DockerSandbox

    def start() -> Any:
        return DockerSandbox(
            image=target.name,
            memory="2g",
            cpus=float(os.cpu_count() or 1),
            max_output_bytes=GIB,
            extra_run_args=["--label", label(target)],
        )

    backend = await anyio.to_thread.run_sync(start)
    box = Deepagents(backend)
    try:
        yield box
    finally:
        await box.thread(backend.close)


COMPOSE = """\
services:
  default:
    image: "{image}"
    command: "tail -f /dev/null"
    init: true
    network_mode: none
    stop_grace_period: 1s
    working_dir: /tmp
    labels: ["{label}"]
"""
"""Inspect's own default, with another image and a label."""


class Inspect:
    """A sample's environment of Inspect's docker provider."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment

    async def __call__(self, argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        options: dict[str, Any] = {"timeout": math.ceil(timeout), "concurrency": False}
        done = await self.environment.exec(
            list(argv), input=stdin or None, timeout_retry=False, **options
        )
        return str(done.stdout)

    async def write(self, name: str, data: bytes) -> None:
        await self.environment.write_file(name, data)

    async def read(self, name: str) -> bytes:
        return bytes(await self.environment.read_file(name, text=False))


@contextlib.asynccontextmanager
async def inspect_docker(target: Target) -> AsyncIterator[Inspect]:
    from inspect_ai.util._sandbox.docker.docker import DockerSandboxEnvironment as Docker

    try:
        docker("compose", "version")
    except NotHereError:
        raise NotHereError("docker compose is not installed") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "compose.yaml"
        file.write_text(COMPOSE.format(image=target.name, label=label(target)))
        found = await Docker.sample_init("bench", str(file), {})
        try:
            yield Inspect(found["default"])
        finally:
            await Docker.sample_cleanup("bench", str(file), found, interrupted=False)


class Bare:
    """docker's own command line."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def __call__(self, argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        found: Sized = await self.call(argv, stdin, timeout)
        return found

    async def write(self, name: str, data: bytes) -> None:
        await self.call(["sh", "-c", 'cat >"$0"', f"/tmp/{name}"], data, LONG)

    async def read(self, name: str) -> bytes:
        return bytes(await self.call(["cat", f"/tmp/{name}"], b"", LONG))


@contextlib.asynccontextmanager
async def bare_docker(target: Target) -> AsyncIterator[Bare]:
    began = ["docker", "run", "-d", "--init", "--label", label(target), target.name]
    name = (await anyio.run_process([*began, "sleep", "3600"])).stdout.decode().strip()
    try:
        prefix = ["docker", "exec", "-i", name]
        async with command_line(lambda _: prefix, "").connect(target) as call:
            yield Bare(call)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.run_process(["docker", "rm", "-f", "-v", name])


@contextlib.contextmanager
def image(run: str) -> Iterator[Target]:
    if not docker("images", "-q", IMAGE):
        raise NotHereError(f"the image {IMAGE} is not here: docker pull {IMAGE}")
    yield Target(run=run, name=IMAGE)


def _place(
    name: str,
    title: str,
    start: Callable[[str], AbstractContextManager[Target]],
    clean: Callable[[str], None],
    *peers: Peer,
) -> Place:
    return Place(
        name=name,
        title=title,
        start=start,
        clean=clean,
        peers=peers,
        loops=("asyncio",),
        widths=(1,),
        files=SIZES,
        output=0,
        budget=75.0,
    )


LOCAL = _place(
    "box",
    "A box on this host",
    here,
    nothing,
    llm_sandbox("llm-sandbox, bubblewrap", lambda _: {"backend": "bubblewrap"}),
    boxed("anyspawn Bubblewrap", lambda _: Bubblewrap(default_timeout=LONG)),
    boxed("anyspawn Direct", lambda _: Direct(default_timeout=LONG)),
    Peer(
        name="deepagents LocalShellBackend",
        connect=deepagents_local,
        stdin="none",
        loops=("asyncio",),
    ),
)
DOCKER = _place(
    "box_docker",
    "A box in a container",
    image,
    clean,
    Peer(name="docker exec", connect=bare_docker),
    boxed(
        "anyspawn DockerRun",
        lambda target: DockerRun(
            target.name,
            default_timeout=LONG,
            workdir="/tmp",
            extra_args=(f"--label={label(target)}",),
        ),
    ),
    llm_sandbox(
        "llm-sandbox, docker",
        lambda target: {
            "backend": "docker",
            "image": target.name,
            "runtime_configs": {"labels": {LABEL: target.run}},
        },
    ),
    Peer(name="inspect-ai, docker", connect=inspect_docker, loops=("asyncio",)),
    Peer(
        name="deepagents-docker",
        connect=deepagents_docker,
        stdin="none",
        loops=("asyncio",),
    ),
)
