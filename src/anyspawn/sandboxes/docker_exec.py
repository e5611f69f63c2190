"""`DockerExec`: commands in a container that runs already."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs
from attrs import field, frozen

from anyspawn._env import Env
from anyspawn._model import Command, Completed, Launch
from anyspawn._sandbox import config_text, config_texts, optional_text
from anyspawn.argv.docker import docker_exec_argv, env_by_client, env_fds
from anyspawn.exceptions import NotStartedError, SpawnError, TransportError
from anyspawn.sandboxes._docker import INSTALL, failure
from anyspawn.sandboxes._residents import CLIENT_ENV
from anyspawn.sandboxes._supervised import (
    SupervisedSandbox,
    explain_report,
    known_by,
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


_DOCKERS_WORDS = (
    "Error response from daemon: ",
    "Cannot connect to the Docker daemon",
    "permission denied while",
)
_PODMANS_WORDS = ("Error: ",)


def _extra_args(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "extra_args")


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
        workdir: The working directory inside for commands that have none of their own. Default: the
            container's.
        user: The user inside, by name or number. Default: the container's.
        extra_args: Arguments for ``docker exec`` after all others.
        docker_path: The client. Default: ``docker``; ``podman`` works too.
        supervisor: ``auto`` (default): without where the container has no sh, which is logged, and
            where clean-up then cannot be confirmed; ``required``: such a container is an error;
            ``off``: never.
        resident: How many supervisors may stay in the container and serve one command after the
            other, each in a few milliseconds; more commands wait for their turn, on their own
            timeout. Default 0: each command has a supervisor, and a client, of its own.
        idle_timeout: Seconds after which a resident that serves nobody ends. Default 60.
        shared: Who else runs programs in the container as the same user. ``untrusted`` (default):
            anyone. A hostile one can stop the supervisor and forge the outcome of a call; the log
            says so once, and hooks that filter refuse the sandbox. ``trusted``: nobody who would.
    """

    container: str = field(kw_only=False, validator=config_text)
    name: str = field(default="docker_exec", validator=config_text)
    workdir: str | None = field(default=None, validator=optional_text)
    user: str | None = field(default=None, validator=optional_text)
    extra_args: tuple[str, ...] = field(default=(), converter=_extra_args)
    docker_path: str = field(default="docker", validator=config_text)

    @property
    def _target(self) -> str:
        return f"container {self.container}"

    def launch(self, command: Command) -> Launch:
        """Return the ``docker exec`` process for ``command``."""
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
        user = (f"--user={self.user}",) if self.user else ()
        known = known_by(command, resident=self.resident)
        sweep = (docker, "exec", *user, self.container, "sh", "-c", SWEEP, "anyspawn", *known)
        return supervised(
            command,
            explain=_explain,
            cwd=command.cwd if self.resident else None,
            env=CLIENT_ENV if self.resident else Env(),
            remote=True,
            stop=(*sweep, "TERM"),
            end=(*sweep, "KILL"),
            gone=sweep,
            gone_words=_GONE,
            **fields,
        )

    def _plain_outcome(self, completed: Completed) -> Completed:
        """Return an outcome of a program that never ran without what docker wrote to its stdout
        about that.
        """
        if isinstance(
            completed.error, (NotStartedError, TransportError)
        ) and completed.stdout.startswith(b"OCI runtime"):
            return attrs.evolve(completed, stdout=b"", stdout_total=0)
        return completed


def _explain(completed: Completed, report: Report) -> SpawnError | None:
    return explain_report(completed, report, failure)


def _explain_plain(completed: Completed, _: bytes) -> SpawnError | None:
    """Tell the client's failures from the program's by what the client says; there is nothing
    better to go by.
    """
    code, stderr = completed.returncode, completed.stderr.decode(errors="replace")
    if code is None or code < 0:
        return failure(stderr, code, started=None)
    said = stderr + completed.stdout[:4096].decode(errors="replace")
    if code in {126, 127} and (match := re.search(r'OCI runtime exec failed.*exec: "(.*?)"', said)):
        return not_started(match[1], code)
    words = _DOCKERS_WORDS if code == 1 else _PODMANS_WORDS if code == 125 else ()
    if any(line.startswith(words) for line in stderr.splitlines() if words):
        return failure(stderr, code, started=None)
    return None
