"""`DockerRun`: a fresh container for each command."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Literal

import anyio
import attrs
from attrs import Attribute, field, frozen

from anyspawn._egress import Egress
from anyspawn._env import Env
from anyspawn._limits import Limits, limits_or_none
from anyspawn._masks import Masks
from anyspawn._model import Command, Completed, Fill, Launch
from anyspawn._owner import owner
from anyspawn._sandbox import config_text, config_texts, host_path, optional_text
from anyspawn._security import SecurityConfig
from anyspawn._telemetry import warn
from anyspawn.argv.docker import (
    container_name,
    docker_run_argv,
    entered,
    env_by_client,
    env_fds,
    remove_argv,
)
from anyspawn.exceptions import (
    ConfigError,
    ExitError,
    NotStartedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.sandboxes._client import is_podman, without_proxies
from anyspawn.sandboxes._docker import (
    CANNOT_BEGIN,
    INSTALL,
    beside,
    events,
    failure,
    no_user,
    refused_by_init,
    refused_by_runtime,
)
from anyspawn.sandboxes._residents import CLIENT_ENV, ResidentSandbox, started_ahead
from anyspawn.sandboxes._supervised import (
    explain_report,
    known_by,
    no_cwd,
    not_started,
    supervised,
)
from anyspawn.supervisor import SWEEP, Report

__all__ = ["GUARD", "DockerRun"]

_PULL_TIMEOUT = 600.0
_ASK_TIMEOUT = 5.0
_LEAST = 0.001
_LATE_LOOKS = 5
_RUNNER_FAILED = 125
_UNREACHABLE = (
    "Cannot connect to the Docker daemon",
    "error during connect",
    "permission denied while trying to connect",
    "No such image",
)
_KILLED = 137
_DOUBTFUL = {125, 126, 127, _KILLED}
_WARNINGS = re.compile(
    rb"(?:WARNING: (?:The requested image's platform |Your kernel does not support |"
    rb"Published ports are discarded |IPv4 forwarding is disabled|Localhost DNS setting )"
    rb"[^\n]*\n)+"
)
"""Warnings that the client prints before it starts a container (docker/cli and moby,
container/create).
"""
"""Statuses that docker also uses for its own failures, or that mean a kill for lack of memory."""

GUARD = """
read -r _
n=0
while [ "$n" -lt 300 ]; do
  if said=$("$0" container inspect "$1" 2>&1); then
    found=1
    "$0" rm -f -v "$1"
  else
    case $said in *"o such container"* | *"o such object"*) [ -z "$found" ] || exit ;; esac
  fi
  n=$((n + 1))
  sleep 0.2
done
"""
"""A script that removes a container when its stdin is closed, even if docker is still creating it.
"""

_OWN_WORDS = (
    "docker: ",
    "Error: ",
    "unknown flag: ",
    "unknown shorthand flag: ",
    "invalid argument ",
)
"""The beginnings of lines in which docker and podman say why they did not run a container."""
_OURS = {"--name", "--rm", "--detach", "--restart", "--cidfile", "--tty"}


def _mount_path(mount: str, folder: str) -> str:
    """Return a mount with an absolute host path; the name of a volume stays."""
    source, colon, rest = mount.partition(":")
    return (
        host_path(source, folder) + colon + rest
        if source.startswith((".", "~", "/")) or "/" in source
        else mount
    )


def _mounts(value: Iterable[str]) -> tuple[str, ...]:
    mounts = config_texts(value, "mounts")
    for mount in mounts:
        if mount.startswith("-") or ":" not in mount[1:]:
            raise ConfigError(
                f"mounts: {mount!r} is not of the form SOURCE:TARGET or SOURCE:TARGET:OPTIONS"
            )
    return mounts


def _extra_args(value: Iterable[str]) -> tuple[str, ...]:
    args = config_texts(value, "extra_args")
    for arg in args:
        if arg.partition("=")[0] in _OURS or re.fullmatch("-[dit]+", arg):
            raise ConfigError(
                f"extra_args: {arg!r} would take the container out of our hands; leave it out"
            )
    return args


def _network(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Egress):
        optional_text(instance, attribute, value)


def _pull(_: object, __: object, value: Any) -> None:
    if value not in ("never", "missing"):
        raise ConfigError(f"pull must be 'never' or 'missing', not {value!r}")


def _entrypoint(_: object, __: object, value: Any) -> None:
    if value not in (None, "image"):
        raise ConfigError(
            f"entrypoint must be 'image', or None for no entrypoint, not {value!r}; to run a program "
            "of your own, put it in front of the command"
        )


def _security(_: object, __: object, value: Any) -> None:
    if value is not None and not isinstance(value, SecurityConfig):
        raise ConfigError(f"security must be a SecurityConfig or None, not {type(value).__name__}")


@frozen(kw_only=True)
class DockerRun(ResidentSandbox):
    """Run each command in a fresh container with the docker CLI, and always remove the container.

    The image must be there (see ``pull``). Variables reach the program with their exact values, and
    are not in any argv. A program that was killed by signal N has the return code 128 + N. If this
    process is killed, a guard process removes the container.

    Args:
        image: The image.
        network: A docker network; ``none``: no network; an `Egress`: only its hosts, through a
            proxy. Default: docker's default.
        mounts: Volumes as for ``docker run -v``: ``./hooks:/hooks:ro``.
        user: The user inside, by name or number, with or without a group. Default: the image's.
        workdir: The working directory inside; docker creates it if it is missing. A command's
            ``cwd`` is relative to it, is never created, and needs a sh in the image. Default: the
            image's.
        entrypoint: ``None`` (default): clear the image's ENTRYPOINT, so that the command itself
            runs. ``image``: run the entrypoint, with the command as its arguments.
        extra_args: Arguments for ``docker run`` after all others.
        docker_path: The client. Default: ``docker``; ``podman`` works too.
        security: Confinement and limits. Default: docker's defaults.
        limits: How much of the host a command may use; replaces the limits of ``security``. ``tmp``
            is the size of each of the container's folders in memory. Default: the limits of
            ``security``.
        pull: ``never`` (default): a missing image is an error. ``missing``: pull it; the pull does
            not count towards the command's timeout.
        resident: How many containers anyspawn starts in advance, each for one command; a supervisor
            waits in each. Default 0: none.
        idle_timeout: Seconds after which an idle container exits. Default 60.
    """

    takes_user: ClassVar[bool] = True
    image: str = field(kw_only=False, validator=config_text)
    name: str = field(default="docker_run", validator=config_text)
    resident: int = field(default=0, validator=started_ahead)
    network: str | Egress | None = field(default=None, validator=_network)
    mounts: tuple[str, ...] = field(
        default=(), converter=_mounts, metadata={"host_path": _mount_path}
    )
    user: str | None = field(default=None, validator=optional_text)
    workdir: str | None = field(default=None, validator=optional_text)
    entrypoint: Literal["image"] | None = field(default=None, validator=_entrypoint)
    extra_args: tuple[str, ...] = field(default=(), converter=_extra_args)
    docker_path: str = field(default="docker", validator=config_text)
    security: SecurityConfig | None = field(default=None, validator=_security)
    limits: Limits | None = field(default=None, validator=limits_or_none)
    pull: Literal["never", "missing"] = field(default="never", validator=_pull)
    _podman: list[bool] = field(init=False, factory=list, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.network, Egress) and self.resident:
            raise ConfigError(
                "resident: it cannot be combined with an Egress; leave resident at 0, or network out"
            )
        if self.entrypoint and self.resident:
            raise ConfigError(
                "resident: a container that waits for its command runs a supervisor, not the image's "
                "entrypoint; leave resident at 0, or entrypoint out"
            )

    def launch(self, command: Command) -> Launch:
        """Return the ``docker run`` process for ``command``."""
        if isinstance(self.network, Egress):
            command = attrs.evolve(command, env=Env({**self.network.env(), **command.env}))
        argv, docker = docker_run_argv(self, command), self.docker_path
        if self.resident:
            return self._resident_launch(command, argv)
        name = container_name(command)
        return Launch(
            argv=argv,
            env=env_by_client(command.env),
            stdin=command.stdin,
            fd_args=env_fds(argv, command.env),
            runner="docker",
            install=INSTALL,
            explain=_explain,
            remote=True,
            stop=(docker, "kill", name, "--signal=TERM"),
            running=(docker, "ps", "-q", "--filter", f"name=^{name}$"),
            end=remove_argv(docker, name),
            gone=(docker, "ps", "-aq", "--filter", f"name=^{name}$"),
            guard=("sh", "-c", GUARD, docker, name),
        )

    def _resident_launch(self, command: Command, argv: tuple[str, ...]) -> Launch:
        docker, name = self.docker_path, Fill("anyspawn-?", "id")
        known = known_by(command, stays=True)
        return supervised(
            command,
            explain=_explain_resident,
            cwd=command.cwd,
            stays=True,
            without="resident=0",
            argv=argv,
            env=CLIENT_ENV,
            runner="docker",
            install=INSTALL,
            remote=True,
            stop=(docker, "exec", name, "sh", "-c", SWEEP, "anyspawn", *known, "TERM"),
            end=remove_argv(docker, name),
            gone=(docker, "ps", "-aq", "--filter", Fill("name=^anyspawn-?$", "id")),
            guard=("sh", "-c", GUARD, docker, name),
        )

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Give the launch; its container has a label that names this process as its owner."""
        launch = self.launch(command)
        seconds = max(deadline - anyio.current_time(), 0.001)
        podman = await is_podman(self.docker_path, self._podman, seconds)
        if anyio.current_time() >= deadline:
            message = (
                f"{command.argv[0]!r} was not started: {self.docker_path} did not answer in time"
            )
            raise SpawnTimeoutError(message)
        if podman:
            end = remove_argv(self.docker_path, launch.end[-1], podman=True)
            launch = attrs.evolve(launch, end=end)
        launch = without_proxies(launch, podman=podman).filled(owner=owner())
        judge = partial(self._judged, command)
        if not isinstance(self.network, Egress):
            yield attrs.evolve(launch, examine=judge)
            return
        from anyspawn._egress._attach import into_container

        holder = DockerRun(
            self.image,
            network="none",
            docker_path=self.docker_path,
            pull=self.pull,
            security=SecurityConfig(),
            extra_args=("--entrypoint", "sh"),
        )
        left = attrs.evolve(command, timeout=max(deadline - anyio.current_time(), _LEAST))
        async with into_container(self.network, launch, left, holder, self.docker_path) as way:

            async def examine(completed: Completed) -> Completed | None:
                judged = await judge(completed)
                return None if judged is None else way.counted(judged)

            yield attrs.evolve(way.launch, examine=examine)

    async def _judged(self, command: Command, completed: Completed) -> Completed | None:
        """Return the outcome with the right error, or ``None`` if the image was pulled."""
        completed = self._without_warnings(command, completed)
        error = completed.error
        if isinstance(error, NotStartedError):  # stderr holds the message of the container's init
            return attrs.evolve(completed, stderr=b"", stderr_total=0)
        code = completed.returncode
        doubtful = isinstance(error, ExitError) and (
            code in _DOUBTFUL or (code == 1 and completed.stderr_text.startswith(CANNOT_BEGIN))
        )
        refused = isinstance(error, TransportError) and (
            error.started is False or error.kind == "unreachable"
        )
        if not self.resident and (doubtful or (refused and completed.stderr)):
            code = code or _RUNNER_FAILED
            error = await self._examine(completed, command, code)
            returncode = code if isinstance(error, ExitError) else None
            completed = attrs.evolve(completed, error=error, returncode=returncode)
        if not isinstance(error, TransportError) or error.kind != "image" or self.pull != "missing":
            return completed
        failed = await self._pull_image()
        return None if failed is None else attrs.evolve(completed, error=failed)

    def _without_warnings(self, command: Command, completed: Completed) -> Completed:
        """Return the outcome without docker's own warnings, which come first on stderr; log
        them.
        """
        found = _WARNINGS.match(completed.stderr)
        if found is None:
            return completed
        for line in found[0].decode(errors="replace").splitlines():
            warn("anyspawn.docker", "%s: docker says: %s", self.name, line)
        stderr = completed.stderr[found.end() :]
        total = completed.stderr_total - found.end()
        if completed.error is not None and completed.error.stderr_tail:
            completed.error.stderr_tail = Masks(command.env).last_lines(stderr)
        return attrs.evolve(completed, stderr=stderr, stderr_total=total)

    @property
    def _once(self) -> bool:
        return True

    async def _examine(
        self, completed: Completed, command: Command, code: int
    ) -> SpawnError | None:
        """Return the error that a status means, by the daemon's events about the container."""
        program = command.argv[0]
        stderr = completed.stderr.decode(errors="replace")
        record = await self._events(command)
        for _ in range(_LATE_LOOKS):
            if record is None or code != _KILLED or "oom" in _actions(record):
                break
            await anyio.sleep(0.1)  # the event about memory can follow that of the exit
            record = await self._events(command)
        if record is None:
            # A client that cannot even start fails at any request.
            never = stderr.startswith(CANNOT_BEGIN) and not completed.stdout
            return failure(stderr, code, started=False if never else None)
        actions = _actions(record)
        if actions & {"start", "die"}:
            if "oom" in actions and code == _KILLED:
                return ExitError(
                    f"{program!r} was killed by the kernel: the container was out of memory"
                )
            if f"die {code}" not in record:
                return failure(stderr, code, started=True)
            bounds = (self.limits, self.security)
            if code == _KILLED and any(bound and bound.memory is not None for bound in bounds):
                return ExitError(
                    f"{program!r} was killed (status 137); the likely cause is a lack of memory, which docker does not always report"
                )
            return ExitError(f"{program!r} exited with status {code}")
        # The daemon keeps only its last events: a missing start proves nothing unless docker says
        # why.
        own = any(line.startswith(_OWN_WORDS) for line in stderr.splitlines())
        if completed.stdout or not (own or "create" in actions):
            return TransportError(
                f"docker's status {code} may be its own or the program's; its daemon has no record of it",
                started=None,
            )
        if 'exec: "sh": ' in stderr and (command.cwd or command.merge_stderr):
            wants = "cwd needs; use workdir instead" if command.cwd else "merge_stderr needs"
            return TransportError(
                f"the image {self.image} has no sh, which a command's {wants}",
                started=False,
                kind="shell",
            )
        if (as_shell := refused_by_runtime(stderr)) is not None:
            return not_started(program, as_shell)
        return no_user(stderr) or failure(stderr, code, started=False)

    async def _events(self, command: Command) -> list[str] | None:
        """Return the events of the command's container, or ``None`` if docker does not tell."""
        label = f"label=io.anyspawn.id={command.id}"  # a filter by name matches every name with that prefix
        docker = self.docker_path
        if not await is_podman(docker, self._podman):
            form = '{{.Action}} {{index .Actor.Attributes "exitCode"}}'
            lines = await events(docker, label, form=form)
            return None if lines is None else [line.strip() for line in lines]
        form = "{{.Status}} {{.ContainerExitCode}}"
        when = ("--since=1h", "--stream=false")
        argv = [docker, "events", *when, "--format", form, "--filter", label]
        done = await beside(argv, timeout=_ASK_TIMEOUT)
        if done.error is not None:
            return None
        return [line.strip().replace("died ", "die ") for line in done.text.splitlines()]

    async def _pull_image(self) -> SpawnError | None:
        """Pull the image; return the error if that failed."""
        import logging

        log = logging.getLogger("anyspawn.docker")
        log.info("pulling %s", self.image)

        def progress(_: str, chunk: bytes) -> None:
            for line in chunk.decode(errors="replace").splitlines():
                log.debug("pulling %s: %s", self.image, line)

        done = await beside(
            [self.docker_path, "pull", self.image], timeout=_PULL_TIMEOUT, on_output=progress
        )
        if done.error is None:
            return None
        return TransportError(
            f"the image {self.image} could not be pulled: {failure(done.stderr.decode(errors='replace'), done.returncode, started=False)}",
            started=False,
        )


def _explain_resident(completed: Completed, report: Report) -> SpawnError | None:
    unknown = None if report.ready else no_user(completed.stderr_text)
    return unknown or explain_report(completed, report, failure)


def _actions(record: list[str]) -> set[str]:
    return {line.partition(" ")[0] for line in record}


def _explain(completed: Completed, _: bytes) -> SpawnError | None:
    code, program = completed.returncode, completed.argv[0]
    if code is not None and code < 0:
        return failure("", code, started=None)
    said = completed.stderr.decode(errors="replace")
    found = entered(completed.runner_argv, said)
    if found is not None and code == found[1] and not completed.stdout:
        return no_cwd(program) if found[0] == "nocwd" else not_started(program, found[1])
    if code and not completed.stdout and (as_shell := refused_by_init(program, code, said)):
        return not_started(program, as_shell)
    if code == _RUNNER_FAILED and any(words in said for words in _UNREACHABLE):
        # the daemon's events decide whether the program wrote it
        return failure(said, code, started=None)
    return None
