"""`KubectlExec`: commands in pods that run already."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import anyio
import attrs
from attrs import Attribute, field, frozen

from anyspawn._env import Env
from anyspawn._model import Command, Completed, Launch
from anyspawn._sandbox import config_text, config_texts, host_path, optional_text
from anyspawn._spawn.call import run
from anyspawn._spawn.tasks import PerLoop
from anyspawn.argv.kubectl import kubectl_argv, kubectl_exec_argv
from anyspawn.exceptions import ConfigError, NotStartedError, SpawnError, TransportError
from anyspawn.sandboxes._docker import refused_by_runtime
from anyspawn.sandboxes._kubectl import (
    GONE,
    INSTALL,
    about_the_pod,
    failure,
    is_all_there_is,
    pod_state,
)
from anyspawn.sandboxes._pods import Pod, Pods
from anyspawn.sandboxes._residents import CLIENT_ENV
from anyspawn.sandboxes._supervised import (
    SupervisedSandbox,
    explain_report,
    known_by,
    not_started,
    supervised,
)
from anyspawn.supervisor import SWEEP, Report, script_line

__all__ = ["KubectlExec"]

_KINDS = ("pod", "pods", "po")
_ASK_TIMEOUT = 5.0
_MOST_PODS = 5
_TRAILER = re.compile(rb"command terminated with exit code (\d+)\n\Z")
_DEFAULTED = re.compile(rb"\ADefault(?:ed|ing) container .*\n(?:Use '?kubectl describe .*\n)?")
_EVERYWHERE = {
    "as",
    "as-group",
    "as-uid",
    "certificate-authority",
    "client-certificate",
    "client-key",
    "cluster",
    "insecure-skip-tls-verify",
    "request-timeout",
    "server",
    "tls-server-name",
    "token",
    "user",
}
"""Arguments that every kubectl command takes, in the form ``--name=value``."""


def _extra_args(value: Iterable[str]) -> tuple[str, ...]:
    args = config_texts(value, "extra_args")
    for arg in args:
        found = re.match("(?:--(namespace|container|context|kubeconfig)|-([nc]))(?:=|$)", arg)
        if found:
            name = found[1] or {"n": "namespace", "c": "container"}[found[2]]
            raise ConfigError(
                f"extra_args: {arg!r} would reach only some of kubectl's commands; use {name} instead"
            )
    return args


def _pod(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    optional_text(instance, attribute, value)
    kind, slash, name = (value or "").rpartition("/")
    if slash and not (kind and name):
        raise ConfigError(f"pod must be NAME or KIND/NAME, such as deployment/hooks, not {value!r}")


def _places(_: object, __: object, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(
            f"max_concurrent_per_pod must be an int of 1 or more, or None for no limit, not {value!r}"
        )


@frozen(kw_only=True)
class KubectlExec(SupervisedSandbox):
    """Run commands in running pods with kubectl and a supervisor inside.

    The supervisor is a few lines of POSIX sh. It reads variables and stdin from its own stdin, so
    that neither is in an argv, an API request or an audit log. It reports the start and the exit,
    so that a lost connection does not look like an exit. It kills everything that the command
    started when the call ends or this process dies. A program that was killed by signal N has the
    return code 128 + N.

    With a ``selector``, or a workload as ``pod``, each call goes to the Ready pod with the fewest
    calls. If a call has certainly not started in a pod, another pod gets it. A call never runs
    twice.

    Args:
        pod: A pod's name, or ``KIND/NAME`` as kubectl takes it: ``deployment/hooks``,
            ``service/hooks``.
        selector: A label selector, such as ``app=hooks``, instead of ``pod``.
        namespace: The namespace. Default: the context's.
        container: The container in the pod. Default: kubectl's choice, the first one.
        kubeconfig: A kubeconfig file. Default: kubectl's own, ``$KUBECONFIG`` or
            ``~/.kube/config``.
        context: A context of the kubeconfig. Default: the current one.
        extra_args: Arguments for ``kubectl exec`` after all others, such as
            ``--request-timeout=5s``. Other kubectl commands also get those that say how to reach
            the cluster and as which user, if they have the form ``--name=value``.
        kubectl_path: The client. Default: ``kubectl``.
        resident: How many supervisors stay in each pod and serve one command after another, each in
            a few milliseconds. ``auto`` (default): a sandbox that calls a pod again within
            ``idle_timeout`` keeps one there for each call that ran at once, up to 8; each call
            beyond that starts its own supervisor and client. With a number, further calls wait for
            their turn, within their own timeout. 0: none stays.
        idle_timeout: Seconds after which an idle resident exits. Default 60.
        shared: Whether you trust the other programs that run in the pod as the same user.
            ``untrusted`` (default): a hostile one can stop the supervisor and forge the outcome of
            a call. The log says so once, and hooks that filter refuse the sandbox. ``trusted``: you
            trust all of them.
        max_concurrent_per_pod: How many commands can run at once in one pod of a selector or a
            workload. Further calls wait for their turn, within their own timeout. ``None``
            (default): no limit.
    """

    pod: str | None = field(default=None, kw_only=False, validator=_pod)
    name: str = field(default="kubectl_exec", validator=config_text)
    selector: str | None = field(default=None, validator=optional_text)
    namespace: str | None = field(default=None, validator=optional_text)
    container: str | None = field(default=None, validator=optional_text)
    kubeconfig: str | None = field(
        default=None, validator=optional_text, metadata={"host_path": host_path}
    )
    context: str | None = field(default=None, validator=optional_text)
    extra_args: tuple[str, ...] = field(default=(), converter=_extra_args)
    kubectl_path: str = field(default="kubectl", validator=config_text)
    max_concurrent_per_pod: int | None = field(default=None, validator=_places)
    _pods: PerLoop[Pods] = field(init=False, factory=lambda: PerLoop(Pods), repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if (self.pod is None) == (self.selector is None):
            raise ConfigError(
                "pod or selector: give one of them, a pod's name or a label selector such as app=hooks"
            )

    @property
    def _one_pod(self) -> str | None:
        """The name of the pod, or ``None`` if there is a choice."""
        kind, _, name = (self.pod or "").rpartition("/")
        return name if self.pod and (not kind or kind.lower() in _KINDS) else None

    @property
    def _target(self) -> str:
        return f"pod {self._one_pod or self.pod or self.selector}"

    def launch(self, command: Command) -> Launch:
        """Return the ``kubectl exec`` process for ``command``. With a selector its pod is a
        placeholder; with ``resident="auto"`` it is the one for a call without a resident.
        """
        argv = kubectl_exec_argv(self, command)
        stays = self.resident not in (0, "auto")
        fields: dict[str, Any] = {"argv": argv, "runner": "kubectl", "install": INSTALL}
        if self.supervisor == "off":
            return Launch(stdin=command.stdin, explain=_explain_plain, remote=True, **fields)
        if self._one_pod is not None:
            container = ("-c", self.container) if self.container else ()
            known = known_by(command, stays=stays)
            target = (*container, *self.extra_args, self._one_pod, "--")
            sweep = kubectl_argv(self, "exec", *target, "sh", "-c", SWEEP, "anyspawn", *known)
            fields |= {"stop": (*sweep, "TERM"), "end": (*sweep, "KILL")}
            fields |= {"gone": sweep, "gone_words": GONE}
        return supervised(
            command,
            explain=_explain,
            cwd=command.cwd,
            before=b"" if stays else script_line(),
            stays=stays,
            env=CLIENT_ENV if stays else Env(),
            remote=True,
            **fields,
        )

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Give the launch; if there is a choice of pods, in the one with the fewest calls."""
        if self._one_pod is not None:
            async with super().place(command, deadline) as launch:
                yield launch
            return
        pods = self._choice()
        pod = await pods.pick(deadline=deadline)
        if isinstance(pod, SpawnError):
            raise pod
        one = self._in(pod)
        try:
            async with one.place(command, deadline) as launch:
                yield attrs.evolve(launch, examine=partial(self._another, pod, launch))
        finally:
            pod.without_sh = bool(one._without_sh)  # noqa: SLF001  this package's own class
            pods.release(pod)

    async def _another(self, pod: Pod, launch: Launch, completed: Completed) -> Completed | None:
        """Return the outcome, or ``None`` if the call has certainly not started in the pod."""
        examined = await launch.examine(completed) if launch.examine is not None else completed
        if examined is None or not _refused_by_pod(examined):
            return examined
        self._choice().lose(pod)
        return None

    def _in(self, pod: Pod) -> Self:
        one = self._changed(pod=pod.name, selector=None)
        object.__setattr__(one, "_without_sh", [True] if pod.without_sh else [])
        return one

    def _choice(self) -> Pods:
        return self._pods.get(self._ask, self.pod, self.selector, self.max_concurrent_per_pod)

    async def _ask(self, *args: str, seconds: float = _ASK_TIMEOUT) -> Completed:
        """Run a kubectl command that changes nothing."""
        known = [
            arg
            for arg in self.extra_args
            if arg.startswith("--") and arg[2:].partition("=")[0] in _EVERYWHERE
        ]
        argv = kubectl_argv(self, *args, *known)
        command = Command(argv, timeout=seconds, output_limit=64 * 2**20)
        launch = Launch(argv=argv, runner="kubectl", install=INSTALL, explain=_explain_plain)
        return await run(
            launch, command, mode=self.name, began=anyio.current_time(), timeout=seconds
        )

    async def judged(self, completed: Completed) -> Completed:
        """Return the outcome; if the pod failed, its error says how."""
        error, stderr = completed.error, completed.stderr.decode(errors="replace")
        if (
            self._one_pod is None
            or not isinstance(error, TransportError)
            or error.kind == "shell"
            or not about_the_pod(stderr)
        ):
            return completed
        if "error dialing backend" in stderr or (error.started is False and not stderr):
            return completed
        found = await self._ask(
            "get", "pod", str(self._one_pod), "--ignore-not-found", "-o", "json"
        )
        if found.error is not None:
            return completed
        if not found.stdout.strip():
            words = (
                f"there is no pod {self._one_pod}"
                if error.started is False
                else f"pod {self._one_pod} is gone"
            )
        else:
            state = pod_state(json.loads(found.stdout), self.container)
            if state.running:
                return completed
            words = state.text
        return attrs.evolve(
            completed,
            error=TransportError(f"{error} ({words})", started=error.started, kind="target"),
        )

    async def plain_outcome(self, completed: Completed, _: float) -> Completed:
        """Return the outcome without the text that kubectl, or the node, added to the program's
        output.
        """
        if isinstance(completed.error, NotStartedError):
            return attrs.evolve(completed, stdout=b"", stdout_total=0, stderr=b"", stderr_total=0)
        stderr = _TRAILER.sub(b"", completed.stderr)
        stderr = _DEFAULTED.sub(b"", stderr)
        total = completed.stderr_total - len(completed.stderr) + len(stderr)
        return attrs.evolve(completed, stderr=stderr, stderr_total=total)


def _refused_by_pod(completed: Completed) -> bool:
    """Whether a call has certainly not started in the pod, so that another pod can get it."""
    error = completed.error
    if not isinstance(error, TransportError) or error.started is not False:
        return False
    return not completed.stderr or about_the_pod(completed.stderr_text)


def _explain(completed: Completed, report: Report) -> SpawnError | None:
    return explain_report(completed, report, failure)


def _explain_plain(completed: Completed, _: bytes) -> SpawnError | None:
    """Return kubectl's failure, if it is one: its last line names an exit code only for a program
    that exited.
    """
    code, stderr = completed.returncode, completed.stderr.decode(errors="replace")
    if code == 0:
        return None
    trailer = _TRAILER.search(completed.stderr)
    if code is None or code < 0 or trailer is None or int(trailer[1]) != code:
        alone = code == 1 and not completed.stdout and is_all_there_is(stderr)
        return failure(stderr, code, started=False if alone else None)
    said = stderr + completed.stdout[:4096].decode(errors="replace")
    if code in {126, 127} and (match := re.search(r'OCI runtime exec failed.*exec: "(.*?)"', said)):
        return not_started(match[1], refused_by_runtime(said) or code)
    return None
