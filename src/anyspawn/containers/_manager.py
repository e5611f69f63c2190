"""`ContainerManager`: long-lived containers, with the docker CLI."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.to_thread
import attrs
from attrs import field, frozen

from anyspawn._env import Env
from anyspawn._model import Command, Completed, Launch
from anyspawn._owner import owner
from anyspawn._sandbox import (
    config_flag,
    config_text,
    config_texts,
    host_path,
    optional_text,
)
from anyspawn._security import SecurityConfig, security_options
from anyspawn._spawn.call import run
from anyspawn._spawn.tasks import see_through
from anyspawn.argv._text import check_text
from anyspawn.argv.docker import env_args, env_by_client, env_fds, remove_argv
from anyspawn.containers._info import ContainerInfo
from anyspawn.containers._reaper import Orphan, reap_orphans, remove
from anyspawn.exceptions import (
    ConfigError,
    ExitError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.sandboxes._client import is_podman, without_proxies
from anyspawn.sandboxes._docker import INSTALL, failure, refused_by_init, refused_by_runtime
from anyspawn.sandboxes._supervised import not_started
from anyspawn.sandboxes.docker_exec import DockerExec
from anyspawn.sandboxes.docker_run import GUARD

__all__ = ["ContainerManager", "ContainerSpec", "running"]

_log = logging.getLogger("anyspawn.docker")

OnOutput = Callable[[Literal["stdout", "stderr"], bytes], "Awaitable[None] | None"]

_ASK = 30.0
_PULL = 600.0
_TIMEOUT_LABEL = "io.anyspawn.timeout"
_REMOVE_LABEL = "io.anyspawn.remove-on-exit"
_IDLE = ("sh", "-c", 'trap "exit 0" TERM; while :; do sleep 3600 & wait; done')
_UNDER_A_TERMINAL = (
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])) & 255)",
)


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "cmd")


def _entrypoint(value: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if value is None else config_texts(value, "entrypoint")


def _env(value: Mapping[str, str | None] | Iterable[str]) -> Env:
    return value if isinstance(value, Env) else Env(value)


def _workspace(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(f"workspace must be a path or None, not {type(value).__name__}")
    path = os.path.abspath(value)
    if not os.path.isdir(path):
        raise ConfigError(f"workspace: {path!r} is not a directory")
    if ":" in path:
        raise ConfigError(
            f"workspace: {path!r} has a colon, which docker reads as the end of the path"
        )
    return path


def _seconds(_: object, __: object, value: Any) -> None:
    if value is not None and (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 < value < float("inf")
    ):
        raise ConfigError(
            f"timeout must be a finite number of seconds above 0, or None for no limit, not {value!r}"
        )


def _security(_: object, __: object, value: Any) -> None:
    if not isinstance(value, SecurityConfig):
        raise ConfigError(f"security must be a SecurityConfig, not {type(value).__name__}")


@frozen(kw_only=True)
class ContainerSpec:
    """The settings of a new container.

    Args:
        image: The image.
        cmd: The command and its arguments. Default: the image's.
        entrypoint: The entrypoint, which gets the command as its arguments; empty: none. Default:
            the image's.
        workspace: A folder of the host, which the container sees as ``mount_target``. Its user
            (``security.user``) can write there if the folder's owner and mode permit it; if not,
            the log says so when the container is created.
        mount_target: The path of ``workspace`` inside, and the working directory. Default
            ``/work``.
        env: Variables, as for `anyspawn.Command`.
        timeout: Seconds that it can run; then anyspawn stops and removes it. Default: no limit.
        remove_on_exit: Remove it when it has exited. Default false.
        network: A docker network. Default ``none``: no network.
        tty: Give it a terminal.
        attach_stdin: Keep its stdin open for input.
        security: Confinement and limits. The default is strict.
    """

    image: str = field(validator=config_text)
    cmd: tuple[str, ...] = field(default=(), converter=_texts)
    entrypoint: tuple[str, ...] | None = field(default=None, converter=_entrypoint)
    workspace: str | None = field(
        default=None, converter=_workspace, metadata={"host_path": host_path}
    )
    mount_target: str = field(default="/work", validator=config_text)
    env: Env = field(default=Env(), converter=_env)
    timeout: float | None = field(default=None, validator=_seconds)
    remove_on_exit: bool = field(default=False, validator=config_flag)
    network: str | None = field(default="none", validator=optional_text)
    tty: bool = field(default=False, validator=config_flag)
    attach_stdin: bool = field(default=False, validator=config_flag)
    security: SecurityConfig = field(factory=SecurityConfig, validator=_security)


def _can_write(folder: str, user: str | None) -> bool:
    """Whether a user, by numbers, can write to a folder by its mode; true for names."""
    uid, _, gid = (user or "0").partition(":")
    if not uid.isdigit() or int(uid) == 0 or not (gid or "0").isdigit():
        return True
    found = os.stat(folder)
    if found.st_uid == int(uid):
        return bool(found.st_mode & stat.S_IWUSR)
    if found.st_gid == int(gid or 0):
        return bool(found.st_mode & stat.S_IWGRP)
    return bool(found.st_mode & stat.S_IWOTH)


async def _run(launch: Launch, command: Command) -> Completed:
    """Run a docker command whose effect may have to be undone."""
    timeout = command.timeout if isinstance(command.timeout, float) else math.inf
    began = anyio.current_time()
    return await run(launch, command, mode="docker", began=began, timeout=timeout)


class ContainerManager:
    """Creates, runs, inspects and removes containers: an async context manager.

    Labels on its containers name their owner, so that `reap_orphans` can remove them if this
    process dies. It removes containers without ``remove_on_exit`` only with ``kept=True``.

    Args:
        docker_path: The client. Default: ``docker``; ``podman`` works too.
    """

    def __init__(self, *, docker_path: str = "docker") -> None:
        if not isinstance(docker_path, str) or not docker_path:
            raise ConfigError(
                f"docker_path must be the name or path of a program, not {docker_path!r}"
            )
        self._docker = docker_path
        self._podman: list[bool] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Do nothing: the manager holds no resources, and containers stay."""

    async def pull_if_missing(
        self, image: str, *, on_progress: Callable[[str], None] | None = None
    ) -> bool:
        """Pull an image unless it is there; return whether it was pulled.

        Args:
            image: The image.
            on_progress: Called with each line of docker's progress. Default: logged to
            ``anyspawn.docker``.

        Raises:
            SpawnError: It could not be pulled.
        """
        _check_id(image, "image")
        if (
            await self._ask("image", "inspect", "--format={{.Id}}", image, check=False)
        ).error is None:
            return False

        def tell(_: str, chunk: bytes) -> None:
            for line in chunk.decode(errors="replace").splitlines():
                if on_progress is None:
                    _log.debug("pulling %s: %s", image, line)
                else:
                    on_progress(line)

        await self._ask("pull", image, timeout=_PULL, on_output=tell)
        return True

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container, and return its id.

        Raises:
            SpawnError: Docker did not create it; nothing is left of it.
        """
        command = Command([self._docker, "create"], timeout=_ASK)
        env = spec.env.look_up(os.environ)
        name = f"anyspawn-{command.id}"
        argv = [self._docker, "create", "--name", name, "--pull=never"]
        argv += [
            "--label",
            f"io.anyspawn.id={command.id}",
            "--label",
            f"io.anyspawn.owner={owner()}",
        ]
        argv += ["--label", f"{_REMOVE_LABEL}={str(spec.remove_on_exit).lower()}"]
        argv += ["--label", f"{_TIMEOUT_LABEL}={spec.timeout}"] if spec.timeout else []
        argv += security_options(spec.security).args()
        argv += [f"--network={spec.network}"] if spec.network else []
        argv += ["--tty"] if spec.tty else []
        argv += ["--interactive"] if spec.attach_stdin else []
        if spec.workspace is not None:
            if not _can_write(spec.workspace, spec.security.user):
                message = (
                    "workspace %r cannot be written by user %s of the container; set "
                    "security.user, or change the folder's owner or mode"
                )
                _log.warning(message, spec.workspace, spec.security.user)
            argv += [
                "-v",
                f"{spec.workspace}:{spec.mount_target}",
                f"--workdir={spec.mount_target}",
            ]
        argv += env_args(env)
        entrypoint = spec.entrypoint or ()
        check_text("cmd", (*entrypoint, *spec.cmd), "put them into a file of the workspace")
        if spec.entrypoint is not None:
            argv.append(f"--entrypoint={entrypoint[0] if entrypoint else ''}")
        argv += [spec.image, *entrypoint[1:], *spec.cmd]
        podman = await is_podman(self._docker, self._podman)
        launch = Launch(
            argv=argv,
            env=env_by_client(env),
            fd_args=env_fds(tuple(argv), env),
            runner="docker",
            install=INSTALL,
            remote=True,
            end=remove_argv(self._docker, name, podman=podman),
            gone=(self._docker, "ps", "-aq", "--filter", f"name=^{name}$"),
            guard=("sh", "-c", GUARD, self._docker, name),
        )
        try:
            launch = without_proxies(launch, podman=podman)
            done = await _run(launch, attrs.evolve(command, argv=argv))
        except BaseException:  # docker can have created it just before
            await self._clear(name)
            raise
        return self._checked(done).stdout.decode().split()[-1]

    async def start(self, container: str) -> None:
        """Start a container, and leave it running."""
        await self._ask("start", _check_id(container))

    async def run(
        self, container: str, *, stdin: bytes = b"", on_output: OnOutput | None = None
    ) -> int:
        """Start a container, pass on its output until it exits, and return its exit code.

        If the container times out, it is stopped and removed. With ``remove_on_exit``, it is always
        removed.

        Args:
            container: The container's id or name.
            stdin: What it reads, with ``attach_stdin`` in its spec.
            on_output: Called with ``"stdout"`` or ``"stderr"`` and each chunk; with a terminal,
                there is only stdout. Default: write to this process's own streams.

        Raises:
            SpawnTimeoutError: It timed out.
            NotStartedError: Its program could not be executed.
            SpawnError: It could not be started, or the connection to docker was lost.
        """
        _check_id(container)
        info: ContainerInfo | None = None
        try:
            info = await self.inspect(container)
            timeout = _timeout_of(info)
            argv = [
                self._docker,
                "start",
                "--attach",
                *(["--interactive"] if info.open_stdin else []),
                info.id,
            ]
            if info.tty and info.open_stdin:  # docker then requires a local terminal
                argv = [sys.executable, "-c", *_UNDER_A_TERMINAL, *argv]
            done = await _run(
                Launch(
                    argv=argv,
                    stdin=stdin if info.open_stdin else b"",
                    runner="docker",
                    install=INSTALL,
                ),
                Command(
                    argv,
                    timeout=timeout,
                    output_limit=64 * 1024,
                    overflow="truncate",
                    on_output=on_output or _pass_on,
                ),
            )
            timed_out = isinstance(done.error, SpawnTimeoutError)
            if done.error is not None and not timed_out and not isinstance(done.error, ExitError):
                raise done.error
            ended = info if timed_out else await self.inspect(info.id)
        except BaseException as exc:
            if info is not None or not isinstance(exc, SpawnError):
                await self._give_up(container, info)
            raise
        failed = await self._clear(info.id) if timed_out or _removed_on_exit(info) else None
        if timed_out:
            what = f"could not be removed: {failed}" if failed else "was stopped and removed"
            raise SpawnTimeoutError(
                f"container {info.name} timed out after {timeout:g} s, and {what}"
            )
        if failed:
            raise failed
        program, output = str(ended.raw.get("Path", "")), done.stderr + done.stdout
        as_shell = (
            refused_by_runtime(ended.error)
            if ended.error
            else refused_by_init(program, ended.exit_code or 0, output.decode(errors="replace"))
        )
        if as_shell is not None:
            raise not_started(program, as_shell)
        if ended.started == info.started or (
            done.returncode != ended.exit_code and not ended.error
        ):
            raise failure(done.stderr.decode(errors="replace"), done.returncode, started=None)
        if ended.error or ended.exit_code is None:
            said = ended.error or done.stderr.decode(errors="replace")
            raise failure(said, done.returncode, started=False if ended.error else None)
        return ended.exit_code

    async def _give_up(self, container: str, before: ContainerInfo | None) -> None:
        """Undo an unfinished run: remove the container if its spec says so, or stop it if this run
        started it.

        Args:
            container: The container.
            before: Its description before the start; ``None``: it was not started.
        """

        async def undo() -> None:
            if _removed_on_exit(before or await self.inspect(container)):
                await self.remove(container)
            elif before is not None and before.state != "running":
                await self.stop(container, grace=0)

        await self._see_to(container, undo)

    async def _clear(self, container: str) -> SpawnError | None:
        return await self._see_to(container, partial(self.remove, container))

    async def _see_to(
        self, container: str, step: Callable[[], Awaitable[None]]
    ) -> SpawnError | None:
        """Run a step in bounded time, even if the caller is cancelled; log and return its error."""
        failed: SpawnError | None = TransportError(
            f"docker did not answer within {_ASK:g} s", started=None
        )

        async def take() -> None:
            nonlocal failed
            try:
                await step()
                failed = None
            except SpawnError as exc:
                failed = exc

        await see_through(take, _ASK)
        if failed:
            _log.warning("container %s may still run: %s", container, failed)
        return failed

    async def stop(self, container: str, *, grace: float = 10) -> None:
        """Stop a container: SIGTERM, and SIGKILL after ``grace`` seconds.

        A container that has already exited stays as it is.
        """
        await self._ask(
            "stop", f"--time={round(grace)}", _check_id(container), timeout=_ASK + grace
        )

    async def remove(self, container: str) -> None:
        """Remove a container, running or not. It is not an error if it is already gone, or if
        somebody else removes it at the same time.
        """
        podman = await is_podman(self._docker, self._podman)
        failed = await remove(self._docker, _check_id(container), podman=podman)
        if failed is not None:
            raise failed

    async def inspect(self, container: str) -> ContainerInfo:
        """Return docker's description of a container.

        Raises:
            TransportError: The container does not exist, or docker does not answer.
        """
        done = await self._ask("container", "inspect", _check_id(container))
        return ContainerInfo.of(json.loads(done.stdout)[0])

    async def prune(
        self, *, dry_run: bool = False, kept: bool = False, all_boots: bool = False
    ) -> list[Orphan]:
        """Remove the containers of dead owners: `reap_orphans` with this manager's client."""
        return await reap_orphans(
            docker_path=self._docker, dry_run=dry_run, kept=kept, all_boots=all_boots
        )

    @asynccontextmanager
    async def running(self, spec: ContainerSpec) -> AsyncIterator[DockerExec]:
        """Create and start a container, give a `DockerExec` that runs commands in it, and always
        remove it.

        A spec without a command gets one that sleeps until it is stopped; it needs a sh in the
        image.
        """
        idle = spec if spec.cmd or spec.entrypoint else attrs.evolve(spec, entrypoint=_IDLE)
        container = await self.create(attrs.evolve(idle, tty=False, remove_on_exit=True))
        async with DockerExec(container, docker_path=self._docker) as sandbox:
            try:
                await self.start(container)
                yield sandbox
            except BaseException:
                await self._clear(container)
                raise
            if (failed := await self._clear(container)) is not None:
                raise failed

    async def _ask(
        self,
        *args: str,
        timeout: float = _ASK,
        check: bool = True,
        on_output: OnOutput | None = None,
    ) -> Completed:
        command = Command([self._docker, *args], timeout=timeout, on_output=on_output)
        done = await _run(Launch(argv=command.argv, runner="docker", install=INSTALL), command)
        return self._checked(done) if check else done

    def _checked(self, done: Completed) -> Completed:
        error: SpawnError | None = done.error
        if isinstance(error, ExitError):
            error = failure(done.stderr.decode(errors="replace"), done.returncode, started=False)
            error.completed = done
        if error is not None:
            raise error
        return done


@asynccontextmanager
async def running(spec: ContainerSpec, *, docker_path: str = "docker") -> AsyncIterator[DockerExec]:
    """Give an `anyspawn.DockerExec` on a fresh container, and always remove the container, as
    `ContainerManager.running` does.
    """
    async with ContainerManager(docker_path=docker_path).running(spec) as sandbox:
        yield sandbox


def _removed_on_exit(info: ContainerInfo) -> bool:
    return info.labels.get(_REMOVE_LABEL) == "true"


def _timeout_of(info: ContainerInfo) -> float:
    label = info.labels.get(_TIMEOUT_LABEL, "inf")
    try:
        return float(label)
    except ValueError:
        raise TransportError(
            f"the label {_TIMEOUT_LABEL} of container {info.name} is {label!r}, which is not a number",
            started=False,
        ) from None


def _check_id(value: object, what: str = "container") -> str:
    if not isinstance(value, str) or not value or value.startswith("-"):
        raise ConfigError(f"{what} must be a name or an id, not {value!r}")
    return value


async def _pass_on(name: str, chunk: bytes) -> None:
    await anyio.to_thread.run_sync(_write, 1 if name == "stdout" else 2, chunk)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
