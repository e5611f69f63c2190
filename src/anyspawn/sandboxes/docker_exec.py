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
"""What docker and podman say of a container that has ended, and all that ran in it."""


_PODMANS_WORD = "Error: "
_NEVER = (*CANNOT_BEGIN, "Error response from daemon: ")
_CWD = re.compile(r"failed: .*?(?:chdir to cwd|Cwd must be an absolute path)|crun: chdir ")
"""How docker's runtime, and podman's, says that it could not enter the working directory."""
_CHANGES = (
    *("events", "--since=1", "--format={{json .}}", "--filter=type=container"),
    *(f"--filter=event={event}" for event in ("exec_start", "rename", "pause", "die", "destroy")),
)
_LOOKS = 5
_SLACK = 1.0
"""Seconds by which clocks may go wrong during a call."""
_DOUBTFUL = {0, 1, 125, 126, 127, 255}
"""Statuses of the client that need not be the program's. 0 is what it takes for the status of a
program that still runs when the connection is lost.
"""
_ASKS_TOO_LATE = re.compile(r"/exec/[0-9a-f]+/json")
"""The request by which the client asks for a program's status when the connection has ended."""


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
    """Run commands in a running container by way of the docker CLI, looked after by a supervisor
    inside.

    The supervisor is a few lines of POSIX sh. It hands over variables and stdin, so that neither
    stands in an argv, reports start and end, so that a lost connection is not taken for an end, and
    kills the command's whole tree when the call is over or this process is gone. A program ended by
    signal N has the return code 128 + N.

    Args:
        container: The container's name or id.
        workdir: The working directory inside; a command's own ``cwd`` is relative to it. Default:
            the container's.
        user: The user inside, by name or number. Default: the container's.
        extra_args: Arguments for ``docker exec`` after all others.
        docker_path: The client. Default: ``docker``; ``podman`` works too.
        supervisor: ``auto`` (default): without where the container has no sh, which is logged, and
            where clean-up then cannot be confirmed; ``required``: such a container is an error;
            ``off``: never.
        resident: How many supervisors may stay in the container and serve one command after the
            other, each in a few milliseconds. ``auto`` (default): a sandbox that is called again
            within ``idle_timeout`` keeps as many as had calls to serve at once, up to 8; further
            calls have a supervisor, and a client, of their own. With a number of your own further
            calls wait for their turn, on their own timeout. 0: none stays.
        idle_timeout: Seconds after which a resident that serves nobody ends. Default 60.
        shared: Who else runs programs in the container as the same user. ``untrusted`` (default):
            anyone. A hostile one can stop the supervisor and forge the outcome of a call; the log
            says so once, and hooks that filter refuse the sandbox. ``trusted``: nobody who would.
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
        """Not in podman's, whose events do not tell which command they are about."""
        return not named_podman(self.docker_path)

    def launch(self, command: Command) -> Launch:
        """Return the ``docker exec`` process for ``command``; with ``resident="auto"`` that of a
        call of its own.
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
        """Return an outcome without the supervisor, as the daemon's record tells it, and without
        what docker wrote to the program's stdout.
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
        """Whether docker's daemon remembers that a program of this call's time ended so, and has
        not told that of another call.
        """
        for look in range(_LOOKS):
            await anyio.sleep(look * 0.05)  # it is noted just after the client was told of it
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
            # docker's own filter takes all names that begin so
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
    """Return an outcome of a program that never ran without what docker wrote to its stdout about
    that.
    """
    failed = isinstance(completed.error, (NotStartedError, TransportError))
    if failed and completed.stdout.startswith((b"OCI runtime", b"unable to find ")):
        said = completed.stderr + completed.stdout
        return attrs.evolve(
            completed, stdout=b"", stdout_total=0, stderr=said, stderr_total=len(said)
        )
    return completed


def _failed(completed: Completed, code: int) -> SpawnError:
    """Return why docker's status is not the program's, which is not known to have ended so."""
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
        f"the connection to docker was lost before {program!r} was seen to exit; it may still run",
        started=True if late or completed.stdout or code == 0 else None,
        kind="connection",
    )


def _refused(program: str, said: str) -> SpawnError | None:
    """Return why docker could not start a program, as its runtime tells it."""
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
    """Tell what the client's status says by itself; for the rest docker's daemon is asked."""
    code = completed.returncode
    if code is None or code < 0:
        return failure(completed.stderr_text, code, started=None)
    return None


def _podmans_failure(completed: Completed, code: int) -> SpawnError | None:
    """Return podman's own failure, by what it says."""
    stderr = completed.stderr_text
    lines = [line for line in stderr.splitlines() if not line.startswith("See 'podman ")]
    if completed.stdout or not stderr.startswith(_PODMANS_WORD) or len(lines) > 1:
        return None
    refused = _refused(completed.argv[0], stderr.removeprefix(_PODMANS_WORD))
    if code in {126, 127, 255} and refused is not None:
        return refused
    return failure(stderr, code, started=None) if code == 125 else None
