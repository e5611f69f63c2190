"""Where a box is, for each kind of sandbox: a holder that keeps the place, and a sandbox whose
calls run in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import attrs
from attrs import field, frozen

from anyspawn._env import Env
from anyspawn._model import Command, Launch, Sandbox
from anyspawn._sandbox import ArgvSandbox
from anyspawn._spawn.live import Process
from anyspawn._spawn.tasks import see_through, start_detached
from anyspawn.exceptions import ConfigError, PlantedError
from anyspawn.sandboxes.direct import Direct

__all__ = ["Place", "place_of"]

_HOLD = ["sh", "-c", "exec 3<&0; cat <&3 >/dev/null & wait $!"]
"""Stays, and reaps orphans, until its stdin is closed."""
_REMOVE = 'chmod -R u+rwX "$1"; rm -rf "$1"'
_CLEANUP = 30.0
_TRIES, _PAUSE = 40, 0.05
_CALL = "call"
"""The pipe of a box in Bubblewrap by which its holder is called."""


@frozen(kw_only=True)
class Place:
    """The place of a box.

    Args:
        sandbox: Runs a call in it.
        mode: The mode of the sandbox that it was opened with.
        name: The name of the container or pod, or a unique word.
        reached_by: What else another process needs to reach it; ``None``: none can.
        workdir: A path inside; ``None``: where a call starts.
        env: Variables that every call has.
        root: The folder of the host that contains all files; ``None``: the place has its own files.
    """

    sandbox: ArgvSandbox
    mode: str
    name: str
    reached_by: Mapping[str, str | None] | None = None
    workdir: str | None = None
    env: Env = field(default=Env())
    root: str | None = None

    def id_in(self, workdir: str) -> str:
        """Return the id of a box there, which names neither a program nor a file of the host."""
        if self.reached_by is None:
            return f"{self.mode}:{self.name}"
        known = {"workdir": workdir, **self.reached_by}
        fields = {key: value for key, value in known.items() if value is not None}
        said = urlencode(fields, safe="/:", quote_via=quote)
        return f"{self.mode}:{quote(self.name)}?{said}"


def place_of(sandbox: Sandbox, workdir: str | None) -> AbstractAsyncContextManager[Place]:
    """Return a context manager that creates the place of a box, and removes it.

    Raises:
        ConfigError: A box cannot be there.
    """
    kind = type(sandbox)
    for known in kind.__mro__:  # imported only if it is used
        maker = _MAKERS.get(known.__name__)
        if maker is not None and known.__module__.startswith("anyspawn.sandboxes."):
            if getattr(sandbox, "resident", 0) and known.__name__ not in _EXISTING:
                raise ConfigError("sandbox: a box keeps its own supervisors; leave resident at 0")
            return maker(sandbox, workdir)
    raise ConfigError(
        f"sandbox: a box can be in one of anyspawn's own sandboxes, not in a {kind.__name__}"
    )


@asynccontextmanager
async def _existing(sandbox: Any, workdir: str | None) -> AsyncIterator[Place]:
    pod = hasattr(sandbox, "pod")  # whose container is one of several
    target: str | None = sandbox._one_pod if pod else sandbox.container  # noqa: SLF001  one of us
    if target is None:
        raise ConfigError("sandbox: a box is in one pod; pass its name as pod, and no selector")
    names = ("namespace", "container", "context") if pod else ("user",)
    yield Place(
        sandbox=sandbox,
        mode="kubectl_exec" if pod else "docker_exec",
        name=target,
        reached_by={name: getattr(sandbox, name) for name in names},
        workdir=workdir or getattr(sandbox, "workdir", None),
    )


@asynccontextmanager
async def _container(sandbox: Any, workdir: str | None) -> AsyncIterator[Place]:
    from anyspawn._box.engines import in_container
    from anyspawn._egress import Egress
    from anyspawn.argv.docker import container_name

    command = Command(_HOLD)
    async with sandbox.open_process(command):
        name = container_name(command)
        env = Env(sandbox.network.env()) if isinstance(sandbox.network, Egress) else Env()
        async with in_container(name, sandbox) as beside:
            yield Place(
                sandbox=beside,
                mode="docker_run",
                name=name,
                reached_by={},
                workdir=workdir or sandbox.workdir,
                env=env,
            )


@asynccontextmanager
async def _pod(sandbox: Any, workdir: str | None) -> AsyncIterator[Place]:
    from anyspawn._box.engines import in_pod
    from anyspawn.argv.kubectl import pod_name

    command = Command(_HOLD)
    async with sandbox.open_process(command):
        name = pod_name(command)
        reached_by = {"namespace": sandbox.namespace, "context": sandbox.context}
        async with in_pod(name, sandbox) as beside:
            yield Place(
                sandbox=beside,
                mode="kubectl_run",
                name=name,
                reached_by=reached_by,
                workdir=workdir,
            )


@asynccontextmanager
async def _namespaces(sandbox: Any, workdir: str | None) -> AsyncIterator[Place]:
    from anyspawn._box.beside import HOLDER, InBubblewrap, kept, let_go, let_go_when_over

    if workdir is not None:
        sandbox = attrs.evolve(sandbox, workdir=workdir)
    uid, gid = sandbox._ids()  # noqa: SLF001  it is one of us
    own = (uid, gid) == (os.getuid(), os.getgid())
    command = Command(["sh", "-c", HOLDER])
    pipes = tempfile.mkdtemp(prefix="anyspawn-box-")
    over, watching, kept_open = anyio.Event(), [], -1
    try:
        call = os.path.join(pipes, _CALL)
        os.mkfifo(call, 0o600)
        # A request before the holder reads would be lost when the last client closes the pipe.
        kept_open = os.open(call, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if not own:
            os.chmod(pipes, 0o711)  # noqa: S103  to be gone through, by name, by the user inside
            os.chown(call, uid, gid)
        async with _telling(kept(sandbox, pipes).open_process(command)) as holder:

            async def watch() -> None:
                try:
                    await let_go_when_over(holder, pipes)
                finally:  # the event loop may end it
                    over.set()

            watching.append(start_detached(watch, name=f"anyspawn box {pipes}"))
            beside = InBubblewrap(
                name=sandbox.name,
                default_timeout=sandbox.default_timeout,
                max_concurrent=sandbox.max_concurrent,
                pipes=pipes,
                workdir=sandbox.workdir or "/tmp",
                owner="" if own else f"{uid}:{gid}",
                shared="trusted",
            )
            workdir = sandbox.workdir or "/tmp"
            async with beside:
                yield Place(sandbox=beside, mode="bubblewrap", name=command.id, workdir=workdir)
    finally:
        if kept_open >= 0:
            os.close(kept_open)
        with suppress(OSError):  # no descriptor is left
            let_go(pipes)
        await _remove(pipes)
        if watching:
            await see_through(over.wait, _CLEANUP)


@asynccontextmanager
async def _telling(opening: AbstractAsyncContextManager[Process]) -> AsyncIterator[Process]:
    """Give the holder; at its end, report new files that the host would run later: by an error, or
    by a note on the exception that ended the block.
    """
    holder: Process | None = None
    try:
        async with opening as holder:
            yield holder
    except Exception as exc:
        if told := _planted(holder):
            exc.add_note(told.message)
        raise
    if told := _planted(holder):
        raise told


def _planted(holder: Process | None) -> PlantedError | None:
    done = holder.completed if holder is not None else None
    if done is None or not isinstance(done.error, PlantedError):
        return None
    words = done.error.message.partition("; ")[2]
    return PlantedError(f"the box has ended; {words}", paths=done.error.paths)


@frozen(kw_only=True)
class _Guarded(Direct):
    """A process with a guard that removes a folder if this process is killed."""

    folder: str = field()

    def launch(self, command: Command) -> Launch:
        guard = ("sh", "-c", f'read -r _; set -- "$0"; {_REMOVE}', self.folder)
        return attrs.evolve(super().launch(command), guard=guard)


@asynccontextmanager
async def _folder(sandbox: Any, workdir: str | None) -> AsyncIterator[Place]:
    name = os.urandom(16).hex()
    if workdir is not None:
        root = _made(workdir)
        yield Place(sandbox=sandbox, mode="direct", name=name, workdir=root, root=root)
        return
    root = _made(tempfile.mkdtemp(prefix="anyspawn-box-"))
    try:
        async with _Guarded(folder=root).open_process(Command(_HOLD)):
            yield Place(sandbox=sandbox, mode="direct", name=name, workdir=root, root=root)
    finally:
        await _remove(root)


def _made(folder: str) -> str:
    os.makedirs(folder, exist_ok=True)
    return os.path.realpath(folder)


async def _remove(folder: str) -> None:
    """Remove a folder of the host, even if the caller is cancelled, or permissions in it are
    missing.
    """

    async def remove() -> None:
        done = await Direct().spawn(Command(["sh", "-c", _REMOVE, "sh", folder], timeout=_CLEANUP))
        if done.error is None:
            return
        with suppress(OSError):  # no process can start; this needs no descriptor either
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, _CALL))
            os.rmdir(folder)
        with suppress(FileNotFoundError):
            for _ in range(_TRIES):  # a client of a box that ends may still make a pipe there
                os.lstat(folder)
                shutil.rmtree(folder, ignore_errors=True)
                await anyio.sleep(_PAUSE)

    await see_through(remove, _CLEANUP)


_EXISTING = {"DockerExec", "KubectlExec"}
_MAKERS: dict[str, Callable[[Any, str | None], AbstractAsyncContextManager[Place]]] = {
    "Direct": _folder,
    "Bubblewrap": _namespaces,
    "DockerExec": _existing,
    "KubectlExec": _existing,
    "DockerRun": _container,
    "KubectlRun": _pod,
}
