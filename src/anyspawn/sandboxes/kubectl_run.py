"""`KubectlRun`: a fresh pod for each command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, Self

import anyio
import attrs
from attrs import Attribute, define, field, frozen

from anyspawn._limits import Limits, limits_or_none
from anyspawn._model import Cleanup, Command, Completed, Launch
from anyspawn._owner import owner, owner_label
from anyspawn._sandbox import ArgvSandbox, config_text, host_path, optional_text
from anyspawn._spawn.call import run
from anyspawn._spawn.tasks import see_through
from anyspawn._telemetry import warn
from anyspawn.argv.kubectl import CONTAINER, kubectl_argv, kubectl_run_argv, pod_name
from anyspawn.exceptions import (
    ConfigError,
    NotStartedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.sandboxes._kubectl import GONE, INSTALL, failure, pod_state
from anyspawn.sandboxes._supervised import explain_report, known_by, supervised
from anyspawn.supervisor import SWEEP, Report, script_line

__all__ = ["KubectlRun", "pod_manifest"]

_CREATE_TIMEOUT = 5.0
_DELETE_TIMEOUT = 5.0
_LATE = 1.0
"""Seconds that a pod's creation can go on after the deadline, so that its result is known."""
_LOOKS, _PAUSE = 3, 0.3
_LONGEST = 2**31 - 1
_SPARE = 15.0
"""Seconds that a pod lives beyond its command's timeout before the kubelet kills it."""
_REFUSED = re.compile(
    r"\((Invalid|BadRequest|AlreadyExists|Forbidden|NotFound|Unauthorized|TooManyRequests)\)| is invalid: |error validating|"
    r"was refused|connection refused|no such host|context .* does not exist|context was not found|unknown (shorthand )?flag|Please enter |"
    r"no configuration has been provided|no such file or directory|getting credentials|error loading config"
)
"""Messages of kubectl that mean that the API server certainly did not do what was asked."""
_IDLE = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 3600 & wait; done']

GUARD = """
read -r _
n=0
while [ "$n" -lt 20 ]; do
  if said=$("$@" 2>/dev/null) && [ -n "$said" ]; then exit; fi
  n=$((n + 1))
  sleep 1
done
"""
"""A script that deletes a pod when its stdin is closed, even if the pod is still being created; its
arguments are the command that deletes the pod.
"""


def _user(_: object, __: Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigError(
            f"user must be a number of 0 or more, or None for the image's user, not {value!r}"
        )


def _policy(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in ("IfNotPresent", "Never", "Always"):
        raise ConfigError(
            f"image_pull_policy must be 'IfNotPresent', 'Never' or 'Always', not {value!r}"
        )


def _labels(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) for text in (*value, *value.values())
    ):
        raise ConfigError(f"{attribute.name} must be a mapping of texts to texts, not {value!r}")


def _resources(_: object, __: Attribute[Any], value: Any) -> None:
    known = ("limits", "requests")
    if not isinstance(value, Mapping) or not all(
        kind in known
        and isinstance(amounts, Mapping)
        and all(isinstance(amount, (str, int, float)) for amount in amounts.values())
        for kind, amounts in value.items()
    ):
        raise ConfigError(
            "resources must be of the form {'limits': {'cpu': '1', 'memory': '256Mi'}, 'requests': {...}}"
        )


_OURS = {
    "": {"apiVersion", "kind", "status"},
    "metadata": {"name", "generateName", "namespace"},
    "labels": {"io.anyspawn.id", "io.anyspawn.owner"},
    "annotations": {"io.anyspawn.owner"},
}


def _own_fields(value: Mapping[str, Any]) -> None:
    """Refuse overrides of the fields that anyspawn needs to find and delete the pod and to run the
    command.
    """
    metadata = value.get("metadata", {})
    parts = {"": value, "metadata": metadata}
    if isinstance(metadata, Mapping):
        parts |= {name: metadata.get(name, {}) for name in ("labels", "annotations")}
    for name, part in parts.items():
        if not isinstance(part, Mapping):
            raise ConfigError(f"overrides: {name} must be a mapping, not {type(part).__name__}")
        for key in _OURS[name] & part.keys():
            raise ConfigError(f"overrides: {key!r} cannot be changed; anyspawn finds the pod by it")
    spec = value.get("spec", {})
    if not isinstance(spec, Mapping) or not _are_named(spec.get("containers", [])):
        raise ConfigError("overrides: spec.containers must be a list of mappings with a name")


def _overrides(_: object, __: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"overrides must be a mapping in the form of a Pod, not {type(value).__name__}"
        )
    _own_fields(value)
    try:
        json.dumps(value)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"overrides must be a mapping that JSON can hold: {exc}") from None


@frozen(kw_only=True)
class KubectlRun(ArgvSandbox):
    """Run each command in a fresh pod with kubectl, and always delete the pod.

    anyspawn makes an idle pod from ``image``, which must have a sh, and runs the command in it with
    ``kubectl exec`` and the supervisor of `KubectlExec`. Variables and stdin are not in any argv,
    pod description or audit log. The defaults satisfy the restricted Pod Security Standard. The pod
    has a deadline, after which the kubelet kills it even if this process and its guard are gone;
    the pod of a live process or a box has none. The command's timeout starts with the call, so it
    includes the pod's start.

    Args:
        image: The image.
        namespace: The namespace. Default: the context's.
        service_account: The pod's service account, with its token mounted. Default: the
            namespace's, without a token.
        node_selector: Labels that the node must have.
        resources: Requests and limits as in a container's description: ``{"limits": {"cpu": "1",
            "memory": "256Mi"}}``.
        limits: How much of the node a command may use: ``memory``, ``cpu`` and, as ephemeral
            storage, ``tmp``, each unless ``resources`` sets it. The other limits are the node's.
            Default: ``resources`` alone.
        user: The user inside, by number. Default 65534. ``None``: the image's, which must not be
            root.
        image_pull_policy: ``IfNotPresent`` (default), ``Never`` or ``Always``.
        overrides: Fields to add to the Pod or to replace in it. The command's container is called
            ``main``; you can add other containers.
        kubeconfig: A kubeconfig file. Default: kubectl's own, ``$KUBECONFIG`` or
            ``~/.kube/config``.
        context: A context of the kubeconfig. Default: the current one.
        kubectl_path: The client. Default: ``kubectl``.
    """

    takes_user: ClassVar[bool] = True
    image: str = field(kw_only=False, validator=config_text)
    name: str = field(default="kubectl_run", validator=config_text)
    namespace: str | None = field(default=None, validator=optional_text)
    service_account: str | None = field(default=None, validator=optional_text)
    node_selector: Mapping[str, str] = field(factory=dict, validator=_labels, hash=False)
    resources: Mapping[str, Mapping[str, str]] = field(
        factory=dict, validator=_resources, hash=False
    )
    limits: Limits | None = field(default=None, validator=limits_or_none)
    user: int | None = field(default=65534, validator=_user)
    image_pull_policy: Literal["IfNotPresent", "Never", "Always"] = field(
        default="IfNotPresent", validator=_policy
    )
    overrides: Mapping[str, Any] = field(factory=dict, validator=_overrides, hash=False)
    kubeconfig: str | None = field(
        default=None, validator=optional_text, metadata={"host_path": host_path}
    )
    context: str | None = field(default=None, validator=optional_text)
    kubectl_path: str = field(default="kubectl", validator=config_text)
    _live: bool = field(
        default=False, alias="_live", repr=False, eq=False, metadata={"config": False}
    )

    def alone(self) -> Self:
        """Return the sandbox for a live process, whose timeout does not limit its pod."""
        return attrs.evolve(self, _live=True)

    def launch(self, command: Command) -> Launch:
        """Return the ``kubectl exec`` process that runs ``command`` once its pod runs.

        Raises:
            ConfigError: The command's user is a name; pods take numbers.
        """
        _whose(self, command)
        pod = pod_name(command)
        script = ("--", "sh", "-c", SWEEP, "anyspawn", *known_by(command, stays=False))
        sweep = kubectl_argv(self, "exec", "-c", CONTAINER, pod, *script)
        return supervised(
            command,
            explain=_explain,
            cwd=command.cwd,
            before=script_line(),
            argv=kubectl_run_argv(self, command),
            runner="kubectl",
            install=INSTALL,
            remote=True,
            stop=(*sweep, "TERM"),
            end=(*sweep, "KILL"),
            gone=sweep,
            gone_words=GONE,
            guard=self._guard(pod),
        )

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Make a pod, give the launch once it runs, and always delete it."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        launch, name, pod = self.launch(command), pod_name(command), _Pod()
        error: SpawnError | None = TransportError("the API server did not answer in time")

        async def make() -> None:
            nonlocal error
            error = (await self._make(command, deadline)).error
            if isinstance(error, SpawnTimeoutError):
                said = f"{command.argv[0]!r} was not started in time: the API server did not answer"
                error = SpawnTimeoutError(said)
            pod.made = error is None
            pod.never_made = isinstance(error, NotStartedError) or (
                isinstance(error, TransportError) and error.started is False
            )

        async def delete() -> None:
            pod.gone = pod.never_made or await self._delete(launch, name, pod)

        async def examine(completed: Completed) -> Completed:
            pod.idle = completed.cleanup is not Cleanup.UNCONFIRMED
            await see_through(delete, _DELETE_TIMEOUT)
            return completed if pod.gone else attrs.evolve(completed, cleanup=Cleanup.UNCONFIRMED)

        try:
            # Not cancelled: a killed kubectl could leave a request that still makes a pod.
            await see_through(make, _CREATE_TIMEOUT)
            await anyio.lowlevel.checkpoint_if_cancelled()
            error = error or await self._running(command, deadline)
            if isinstance(error, TransportError):
                error = TransportError(str(error), started=False, kind=error.kind)
            if error is None:
                pod.idle = False
                yield attrs.evolve(launch, examine=examine)
        finally:
            if pod.gone is None:
                await see_through(delete, _DELETE_TIMEOUT)
            if not pod.gone:
                message = "pod %s may still be there; anyspawn prune removes it"
                warn("anyspawn.kubectl_run", message, name)
        if error is not None:
            sure = Cleanup.NOT_NEEDED if pod.gone else Cleanup.UNCONFIRMED
            raise Completed(argv=command.argv, error=error, cleanup=sure).error or error

    async def _make(self, command: Command, deadline: float) -> Completed:
        seconds = deadline - anyio.current_time() + command.grace + command.wait_delay + _SPARE
        if self._live:
            seconds = math.inf
        manifest = pod_manifest(self, command, seconds=seconds, owner=owner())
        checked = str(bool(self.overrides)).lower()  # a wrong field can only come from overrides
        argv = kubectl_argv(self, "create", "-f", "-", f"--validate={checked}")
        within = min(_CREATE_TIMEOUT, max(0.0, deadline - anyio.current_time()) + _LATE)
        data = json.dumps(manifest).encode()
        return await self._kubectl(argv, pod_name(command), stdin=data, seconds=within, remote=True)

    async def _running(self, command: Command, deadline: float) -> SpawnError | None:
        """Wait until the pod runs; return the error if it does not."""
        pod, decoder = pod_name(command), json.JSONDecoder()
        text, state = "", None

        def see(stream: str, chunk: bytes) -> None:
            nonlocal text, state
            if stream == "stdout":
                text += chunk.decode(errors="replace")
                while text.strip():
                    try:
                        found, end = decoder.raw_decode(text := text.lstrip())
                    except ValueError:
                        return
                    text, state = text[end:], pod_state(found, CONTAINER)
                    if state.running or state.hopeless:
                        raise _SeenEnoughError

        not_in_time = f"{command.argv[0]!r} was not started in time"
        argv = kubectl_argv(self, "get", "pod", pod, "--watch", "-o", "json")
        seconds = deadline - anyio.current_time()
        if seconds <= 0:  # creating the pod took all of it
            return SpawnTimeoutError(not_in_time)
        try:
            done = await self._kubectl(argv, pod, seconds=seconds, on_output=see)
        except _SeenEnoughError:
            if state is None or state.running:
                return None
            return TransportError(state.text, started=False, kind=state.kind)
        if isinstance(done.error, SpawnTimeoutError):
            waits = f": {state.text}" if state else ""
            return SpawnTimeoutError(not_in_time + waits)
        return done.error or TransportError(
            f"the watch of pod {pod} ended before it ran", started=False
        )

    async def _delete(self, launch: Launch, name: str, pod: _Pod) -> bool:
        """Delete the pod; return whether nothing of the command can be left. If nothing of it runs,
        delete the pod at once; if that is not known, let the kubelet end it first.
        """
        at_once = pod.idle or await self._ended(launch, name)
        how = ("--force", "--grace-period=0") if at_once else ("--now",)
        for _ in range(_LOOKS):
            done = await self._kubectl(self._delete_argv(name, *how), name, seconds=_DELETE_TIMEOUT)
            if done.error is None and (pod.made or done.stdout.strip()):
                return at_once
            await anyio.sleep(_PAUSE)
        return False

    async def _ended(self, launch: Launch, pod: str) -> bool:
        """Kill what is left of the command; return whether nothing is left."""
        for _ in range(_LOOKS):
            found = await self._kubectl(launch.end, pod, seconds=_DELETE_TIMEOUT / _LOOKS)
            if found.error is None and not found.stdout.strip():
                return True
            if any(words.encode() in found.stderr for words in GONE):
                return True
        return False

    def _delete_argv(self, pod: str, *how: str) -> tuple[str, ...]:
        return kubectl_argv(self, "delete", "pod", pod, *how, "--wait=false", "--ignore-not-found")

    def _guard(self, pod: str) -> tuple[str, ...]:
        return (
            "sh",
            "-c",
            GUARD,
            "anyspawn",
            *self._delete_argv(pod, "--now", "--request-timeout=10s"),
        )

    async def _kubectl(
        self,
        argv: tuple[str, ...],
        pod: str,
        *,
        seconds: float,
        remote: bool = False,
        **options: Any,
    ) -> Completed:
        command = Command(
            argv, timeout=seconds, output_limit=64 * 1024, overflow="truncate", **options
        )
        launch = Launch(
            argv=argv,
            stdin=command.stdin,
            runner="kubectl",
            install=INSTALL,
            explain=_explain_other,
            guard=self._guard(pod),
            remote=remote,
        )
        return await run(
            launch, command, mode=self.name, began=anyio.current_time(), timeout=seconds
        )


@define
class _Pod:
    """The pod of one command.

    Args:
        made: It was certainly created. Otherwise a request can still create it.
        never_made: It was certainly not made.
        idle: Certainly nothing of the command runs in it.
        gone: It was deleted and is certainly gone; ``None``: not tried yet.
    """

    made: bool = False
    never_made: bool = False
    idle: bool = True
    gone: bool | None = None


class _SeenEnoughError(Exception):
    """The output contains the line that the call waited for."""


def _explain(completed: Completed, report: Report) -> SpawnError | None:
    return explain_report(completed, report, failure)


def _explain_other(completed: Completed, _: bytes) -> SpawnError | None:
    code, stderr = completed.returncode, completed.stderr.decode(errors="replace")
    if not code:
        return None
    return failure(stderr, code, started=False if code > 0 and _REFUSED.search(stderr) else None)


def _bounds(config: KubectlRun) -> dict[str, dict[str, str]]:
    """Return the requests and limits of a pod's container."""
    bounds = {kind: dict(amounts) for kind, amounts in config.resources.items()}
    if config.limits is not None:
        memory, tmp, cpu = (
            config.limits.bytes_of("memory"),
            config.limits.bytes_of("tmp"),
            config.limits.cpu,
        )
        given = {
            "memory": None if memory is None else str(memory),
            "ephemeral-storage": None if tmp is None else str(tmp),
            "cpu": None if cpu is None else f"{round(cpu * 1000)}m",
        }
        known = {name: value for name, value in given.items() if value is not None}
        bounds["limits"] = known | bounds.get("limits", {})
    return bounds


def _whose(config: KubectlRun, command: Command) -> tuple[int | None, int | None]:
    """Return the numbers of a pod's user and group."""
    if command.user is None:
        return config.user, config.user
    user, _, group = command.user.partition(":")
    if not (user.isdecimal() and (group or "0").isdecimal()):
        raise ConfigError(
            f"user: {config.name} takes a number, with or without a group's, not {command.user!r}"
        )
    return int(user), int(group or user)


def pod_manifest(
    config: KubectlRun, command: Command, *, seconds: float, owner: str
) -> dict[str, Any]:
    """Return the Pod that runs ``command``. Pure.

    Args:
        config: The sandbox.
        command: The command; the pod gets only its id.
        seconds: How long the pod can live; infinite: no limit.
        owner: The process that makes it.
    """
    user, group = _whose(config, command)
    security: dict[str, Any] = {"runAsNonRoot": user != 0}
    if user is not None:
        security |= {"runAsUser": user, "runAsGroup": group}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": config.service_account is not None,
        "enableServiceLinks": False,
        "securityContext": {**security, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER,
                "image": config.image,
                "imagePullPolicy": config.image_pull_policy,
                "command": _IDLE,
                "resources": _bounds(config),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    if not math.isinf(seconds):
        spec["activeDeadlineSeconds"] = min(max(1, math.ceil(seconds)), _LONGEST)
    if config.service_account is not None:
        spec["serviceAccountName"] = config.service_account
    if config.node_selector:
        spec["nodeSelector"] = dict(config.node_selector)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(command),
            "labels": {"io.anyspawn.id": command.id[:63], "io.anyspawn.owner": owner_label(owner)},
            "annotations": {"io.anyspawn.owner": owner},
        },
        "spec": spec,
    }
    merged: dict[str, Any] = _merged(pod, config.overrides)
    return merged


def _merged(base: Any, over: Any) -> Any:
    """Return ``base`` with ``over`` merged in: mappings by key, lists of named items by name. Other
    values are replaced; null removes.
    """
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        both = {
            key: _merged(base.get(key), value) for key, value in over.items() if value is not None
        }
        return {**{key: value for key, value in base.items() if key not in over}, **both}
    if _are_named(base) and _are_named(over):
        names = {item["name"]: item for item in base}
        for item in over:
            names[item["name"]] = _merged(names.get(item["name"]), item)
        return list(names.values())
    return over


def _are_named(items: Any) -> bool:
    return isinstance(items, (list, tuple)) and all(
        isinstance(item, Mapping) and "name" in item for item in items
    )
