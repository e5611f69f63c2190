"""`DockerExec`: commands in a container that runs already."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import anyio
import attrs
from attrs import field, frozen

from anyspawn._env import Env
from anyspawn._model import Cleanup, Command, Completed, Launch
from anyspawn._sandbox import config_text, config_texts, optional_text
from anyspawn.argv.docker import docker_exec_argv, env_by_client, env_fds, named_podman
from anyspawn.exceptions import (
    ConfigError,
    ExitError,
    NotStartedError,
    SpawnError,
    TransportError,
)
from anyspawn.sandboxes._client import is_podman
from anyspawn.sandboxes._docker import (
    CANNOT_BEGIN,
    INSTALL,
    events,
    failure,
    last_words,
    no_user,
    refused_by_runtime,
)
from anyspawn.sandboxes._residents import CLIENT_ENV
from anyspawn.sandboxes._supervised import (
    SupervisedSandbox,
    clock,
    explain_report,
    known_by,
    no_cwd,
    not_started,
    supervised,
)
from anyspawn.supervisor import SWEEP, Report

__all__ = ["DockerExec"]

_GONE = (
    "o such container",
    "is not running",
    "can only create exec sessions on running containers",
)
"""Messages of docker and podman about a container that has exited, with everything in it."""


_PODMANS_WORD = "Error: "
_NEVER = (*CANNOT_BEGIN, "Error response from daemon: ")
_CWD = re.compile(r"failed: .*?(?:chdir to cwd|Cwd must be an absolute path)|crun: chdir ")
"""Messages of the runtimes of docker and podman that could not enter the working directory."""
_CHANGES = (
    *("events", "--since=1", "--format={{json .}}", "--filter=type=container"),
    *(f"--filter=event={event}" for event in ("exec_start", "rename", "pause", "die", "destroy")),
)
_LOOKS = 5
_SLACK = 1.0
"""Seconds by which two clocks can differ more after a call than before."""
_DOUBTFUL = {0, 1, 125, 126, 127, 255}
"""Exit statuses of the client that may not be the program's. The client exits with 0 if it loses
the connection while the program still runs.
"""
_ASKS_TOO_LATE = re.compile(r"/exec/[0-9a-f]+/json")
"""The request by which the client asks for a program's status after the connection ended."""


def _extra_args(value: Iterable[str]) -> tuple[str, ...]:
    args = config_texts(value, "extra_args")
    for arg in args:
        name, equals, flag = arg.partition("=")
        ours = name in {"--detach", "--tty"} or (
            name in {"--interactive", "-i"} and equals and flag.lower() not in {"true", "1", "t"}
        )
        if ours or re.fullmatch("-[idt]*[dt][idt]*", name):
            raise ConfigError(
                f"extra_args: {arg!r} would take the program's streams out of our hands; leave it out"
            )
    return args


@frozen(kw_only=True)
class DockerExec(SupervisedSandbox):
    """Run commands in a running container with the docker CLI and a supervisor inside.

    The supervisor is a few lines of POSIX sh. It passes variables and stdin to the command, so that
    neither is in an argv. It reports the start and the exit, so that a lost connection does not
    look like an exit. It kills everything that the command started when the call ends or this
    process dies. A program that was killed by signal N has the return code 128 + N.

    Args:
        container: The container's name or id.
        workdir: The working directory inside; a command's ``cwd`` is relative to it. Default: the
            container's.
        user: The user inside, by name or number. Default: the container's.
        extra_args: Arguments for ``docker exec`` after all others.
        docker_path: The client. Default: ``docker``; ``podman`` works too.
        supervisor: ``auto`` (default): use it if the container has a sh; if not, log that, and
            clean-up cannot be confirmed. ``required``: a container without sh is an error. ``off``:
            never use it.
        resident: How many supervisors stay in the container and serve one command after another,
            each in a few milliseconds. ``auto`` (default): a sandbox that is called again within
            ``idle_timeout`` keeps one for each call that ran at once, up to 8; each call beyond
            that starts its own supervisor and client. With a number, further calls wait for their
            turn, within their own timeout. 0: none stays.
        idle_timeout: Seconds after which an idle resident exits. Default 60.
        shared: Whether you trust the other programs that run in the container as the same user.
            ``untrusted`` (default): a hostile one can stop the supervisor and forge the outcome of
            a call. The log says so once, and hooks that filter refuse the sandbox. ``trusted``: you
            trust all of them.
    """

    takes_user: ClassVar[bool] = True
    container: str = field(kw_only=False, validator=config_text)
    name: str = field(default="docker_exec", validator=config_text)
    workdir: str | None = field(default=None, validator=optional_text)
    user: str | None = field(default=None, validator=optional_text)
    extra_args: tuple[str, ...] = field(default=(), converter=_extra_args)
    docker_path: str = field(default="docker", validator=config_text)
    _podman: list[bool] = field(init=False, factory=list, repr=False, eq=False)
    _ended: set[str] = field(init=False, factory=set, repr=False, eq=False)

    @property
    def _target(self) -> str:
        return f"container {self.container}"

    @property
    def _may_keep(self) -> bool:
        """Not with podman, whose events do not name the command that they are about."""
        return not named_podman(self.docker_path)

    def launch(self, command: Command) -> Launch:
        """Return the ``docker exec`` process for ``command``; with ``resident="auto"``, the one for
        a call without a resident.
        """
        argv, docker = docker_exec_argv(self, command), self.docker_path
        fields: dict[str, Any] = {"argv": argv, "runner": "docker", "install": INSTALL}
        if self.supervisor == "off":
            return Launch(
                env=env_by_client(command.env),
                stdin=command.stdin,
                fd_args=env_fds(argv, command.env),
                explain=_explain_plain,
                remote=True,
                **fields,
            )
        whose = command.user or self.user
        user = (f"--user={whose}",) if whose else ()
        stays = self.resident not in (0, "auto")
        known = known_by(command, stays=stays)
        sweep = (docker, "exec", *user, self.container, "sh", "-c", SWEEP, "anyspawn", *known)
        return supervised(
            command,
            explain=_explain,
            cwd=command.cwd,
            stays=stays,
            env=CLIENT_ENV if stays else Env(),
            remote=True,
            stop=(*sweep, "TERM"),
            end=(*sweep, "KILL"),
            gone=sweep,
            gone_words=_GONE,
            changes=(docker, *_CHANGES) if stays and not named_podman(docker) else (),
            **fields,
        )

    async def plain_outcome(self, completed: Completed, began: float) -> Completed:
        """Return the outcome of a call without supervisor, checked against the daemon's events, and
        without docker's own text in the program's stdout.
        """
        error, code = completed.error, completed.returncode
        if not (error is None or isinstance(error, ExitError)) or code not in _DOUBTFUL:
            return completed
        if await is_podman(self.docker_path, self._podman):
            why = _podmans_failure(completed, code)
        elif await self._has_ended(completed.argv, code, began):
            why = None
        else:
            why = _failed(completed, code)
        if why is None:
            return completed
        unsure = not isinstance(why, TransportError) or why.started is not False
        left = isinstance(why, TransportError) and unsure
        return _without_dockers(
            attrs.evolve(
                completed,
                error=why,
                returncode=None,
                cleanup=Cleanup.UNCONFIRMED if left else completed.cleanup,
            )
        )

    async def _has_ended(self, argv: tuple[str, ...], code: int, began: float) -> bool:
        """Whether docker's events hold a program of this call's time that exited with this status,
        and that no other call has claimed.
        """
        for look in range(_LOOKS):
            await anyio.sleep(look * 0.05)  # the daemon records it just after it tells the client
            lines = await events(
                self.docker_path,
                *("type=container", "event=exec_start", "event=exec_die"),
                f"container={self.container}",
                form="{{json .}}",
                seconds=lambda: clock() - began + _SLACK,
            )
            if lines is None:
                return False
            if (found := self._new_end(map(json.loads, lines), argv, code)) is not None:
                self._ended.add(found)
                return True
        return False

    def _new_end(self, lines: Iterable[Any], argv: tuple[str, ...], code: int) -> str | None:
        started = set()
        for event in lines:
            actor = event["Actor"]
            about = actor["Attributes"]
            # docker's own filter matches all names with this prefix
            if about.get("name") != self.container and not actor["ID"].startswith(self.container):
                continue
            action, number = event["Action"], about.get("execID", "")
            if action.partition(": ")[2].rstrip() == " ".join(argv).rstrip():
                started.add(number)
            elif (
                action == "exec_die"
                and about.get("exitCode") == str(code)
                and number in started - self._ended
            ):
                return str(number)
        return None


def _without_dockers(completed: Completed) -> Completed:
    """Return the outcome of a program that never ran, without docker's own message in its
    stdout.
    """
    failed = isinstance(completed.error, (NotStartedError, TransportError))
    if failed and completed.stdout.startswith((b"OCI runtime", b"unable to find ")):
        said = completed.stderr + completed.stdout
        return attrs.evolve(
            completed, stdout=b"", stdout_total=0, stderr=said, stderr_total=len(said)
        )
    return completed


def _failed(completed: Completed, code: int) -> SpawnError:
    """Return the error for a status that is docker's, or that may be: no event says that the
    program exited with it.
    """
    program, stderr = completed.argv[0], completed.stderr_text
    said = stderr + completed.stdout[:4096].decode(errors="replace")
    if code in {126, 127} and (refused := _refused(program, said)) is not None:
        return refused
    late = _ASKS_TOO_LATE.search(stderr)
    own = code in {1, 125, 126} and not completed.stdout and last_words(stderr)
    if own and not late:
        why = failure(stderr, code, started=None)
        if why.started is False or stderr.startswith(_NEVER):
            return failure(stderr, code, started=False)
        return why
    return TransportError(
        f"the connection to docker was lost before {program!r} exited; it may still run",
        started=True if late or completed.stdout or code == 0 else None,
        kind="connection",
    )


def _refused(program: str, said: str) -> SpawnError | None:
    """Return the error for a program that docker's runtime could not start."""
    if "OCI runtime" in said or "unable to start container process" in said:
        if _CWD.search(said):
            return no_cwd(program)
        if (as_shell := refused_by_runtime(said)) is not None:
            return not_started(program, as_shell)
        return failure(said, None, started=False)
    return no_user(said) if said.startswith("unable to find ") else None


def _explain(completed: Completed, report: Report) -> SpawnError | None:
    if not report.ready and _CWD.search(completed.stderr_text):
        return no_cwd(completed.argv[0])
    if not report.ready and (unknown := no_user(completed.stderr_text)) is not None:
        return unknown
    return explain_report(completed, report, failure)


def _explain_plain(completed: Completed, _: bytes) -> SpawnError | None:
    """Return the error that the client's status means by itself; docker's events decide the
    rest.
    """
    code = completed.returncode
    if code is None or code < 0:
        return failure(completed.stderr_text, code, started=None)
    return None


def _podmans_failure(completed: Completed, code: int) -> SpawnError | None:
    """Return podman's own failure, read from its stderr."""
    stderr = completed.stderr_text
    lines = [line for line in stderr.splitlines() if not line.startswith("See 'podman ")]
    if completed.stdout or not stderr.startswith(_PODMANS_WORD) or len(lines) > 1:
        return None
    refused = _refused(completed.argv[0], stderr.removeprefix(_PODMANS_WORD))
    if code in {126, 127, 255} and refused is not None:
        return refused
    return failure(stderr, code, started=None) if code == 125 else None
