"""Faults around a program, and the errors of the modes of containers and pods: one table, which the
tests check row by row and the documentation shows.
"""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from anyspawn import Cleanup, Completed, NotStartedError, TransportError

GONE = "tcp://no-such-host.invalid:2375"
GONE_CLUSTER = str(Path(__file__).with_name("unreachable.kubeconfig"))
DOCKER = ("docker_run", "docker_exec")
KUBERNETES = ("kubectl_exec", "kubectl_run")


@frozen(kw_only=True)
class Fault:
    """A fault, and the error that it must cause.

    Args:
        name: Its name in the documentation.
        outcome: The error's class.
        kind: The error's kind.
        started: The error's ``started``, if it has one.
        argv: The command, if it is to blame.
        cwd: The command's working directory.
        settings: Settings of the sandbox; fields that it does not have are ignored.
        environ: Variables of this process.
        modes: The modes in which it can occur, by default all four.
    """

    name: str
    outcome: type
    kind: str
    started: bool | None = False
    argv: tuple[str, ...] = ()
    cwd: str | None = None
    settings: dict[str, object] = field(factory=dict)
    environ: dict[str, str] = field(factory=dict)
    modes: tuple[str, ...] = (*DOCKER, *KUBERNETES)

    def is_told(self, done: Completed, loop: str) -> None:
        """Check that the outcome is the right error, without a status, output or doubt."""
        assert type(done.error) is self.outcome, (loop, done)
        assert done.error.kind == self.kind, (loop, done)
        if self.outcome is not NotStartedError:
            assert done.error.started is self.started, (loop, done)
        assert (done.returncode, done.stdout) == (None, b""), done
        assert done.cleanup is not Cleanup.UNCONFIRMED

    @property
    def told(self) -> str:
        """The outcome as the documentation shows it."""
        if self.outcome is NotStartedError:
            return f'`NotStartedError`, kind `"{self.kind}"`'
        return f'`TransportError`, kind `"{self.kind}"`, `started={self.started}`'


FAULTS = [
    Fault(
        name="The program is missing",
        outcome=NotStartedError,
        kind="not_found",
        argv=("no-such-program",),
    ),
    Fault(
        name="The program cannot be executed",
        outcome=NotStartedError,
        kind="not_executable",
        argv=("/",),
    ),
    Fault(name="`cwd` is missing", outcome=NotStartedError, kind="cwd", cwd="/no/such/folder"),
    Fault(
        name="The user is unknown",
        outcome=NotStartedError,
        kind="user",
        settings={"user": "no-such-user"},
        modes=DOCKER,
    ),
    Fault(
        name="The group is unknown",
        outcome=NotStartedError,
        kind="user",
        settings={"user": "0:no-such-group"},
        modes=DOCKER,
    ),
    Fault(
        name="The client does not know a flag",
        outcome=TransportError,
        kind="other",
        settings={"extra_args": ["--no-such-flag"]},
        modes=(*DOCKER, "kubectl_exec"),
    ),
    Fault(
        name="The client is missing",
        outcome=TransportError,
        kind="runner",
        settings={"docker_path": "no-such-client", "kubectl_path": "no-such-client"},
    ),
    Fault(
        name="The client's context is gone",
        outcome=TransportError,
        kind="runner",
        environ={"DOCKER_CONTEXT": "no-such-context"},
        settings={"context": "no-such-context"},
    ),
    Fault(
        name="The client has no certificates",
        outcome=TransportError,
        kind="runner",
        environ={"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/no/such/folder"},
        modes=DOCKER,
    ),
    Fault(
        name="The daemon's host is unknown",
        outcome=TransportError,
        kind="unreachable",
        environ={"DOCKER_HOST": GONE},
        modes=DOCKER,
    ),
    Fault(
        name="The daemon's host cannot be reached by ssh",
        outcome=TransportError,
        kind="unreachable",
        environ={"DOCKER_HOST": "ssh://nobody@127.0.0.1:1"},
        modes=DOCKER,
    ),
    Fault(
        name="No daemon listens",
        outcome=TransportError,
        kind="unreachable",
        environ={"DOCKER_HOST": "unix:///nowhere/docker.sock"},
        modes=DOCKER,
    ),
    Fault(
        name="The cluster's host is unknown",
        outcome=TransportError,
        kind="unreachable",
        settings={"kubeconfig": GONE_CLUSTER},
        modes=KUBERNETES,
    ),
    Fault(
        name="The image is missing",
        outcome=TransportError,
        kind="image",
        settings={"image": "no-such-image:1", "image_pull_policy": "Never"},
        modes=("docker_run", "kubectl_run"),
    ),
    Fault(
        name="The namespace is missing",
        outcome=TransportError,
        kind="target",
        settings={"namespace": "no-such-namespace"},
        modes=KUBERNETES,
    ),
    Fault(
        name="The pod is missing",
        outcome=TransportError,
        kind="target",
        settings={"pod": "no-such-pod"},
        modes=("kubectl_exec",),
    ),
    Fault(
        name="The container is missing",
        outcome=TransportError,
        kind="target",
        settings={"container": "anyspawn-none"},
        modes=("docker_exec",),
    ),
]


def table() -> str:
    """Return the documentation's table."""
    rows = ["| what is wrong | modes | outcome |", "| --- | --- | --- |"]
    for fault in FAULTS:
        modes = ", ".join(f"`{mode}`" for mode in fault.modes)
        rows.append(f"| {fault.name} | {modes} | {fault.told} |")
    return "\n".join(rows) + "\n"
