"""Removes containers and pods whose owner is dead, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal

import anyio
from attrs import frozen

from anyspawn._call import spawn
from anyspawn._model import Command, Completed, Launch
from anyspawn._owner import is_dead
from anyspawn._spawn.call import run
from anyspawn.argv.docker import remove_argv
from anyspawn.exceptions import ConfigError, SpawnError, TransportError
from anyspawn.sandboxes import _kubectl
from anyspawn.sandboxes._client import is_podman
from anyspawn.sandboxes._docker import INSTALL, failure

__all__ = ["Orphan", "reap_orphans", "remove"]

_LABEL = "io.anyspawn.owner"
_LABELS = (_LABEL, "io.anyspawn.remove-on-exit")
_TIMEOUT = 30.0
_PAUSE = 0.1


@frozen
class Orphan:
    """A container or a pod whose owner is dead.

    Args:
        id: Its id.
        name: Its name; a pod's with its namespace in front: ``default/anyspawn-...``.
        image: Its image.
        state: ``running``, ``exited``, ``created`` and so on; a pod's phase.
        owner: The process that made it: host, pid and start time.
    """

    id: str
    name: str
    image: str
    state: str
    owner: str


async def reap_orphans(
    *,
    mode: Literal["docker_run", "kubectl_run"] = "docker_run",
    dry_run: bool = False,
    kept: bool = False,
    all_boots: bool = False,
    docker_path: str = "docker",
    kubectl_path: str = "kubectl",
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
) -> list[Orphan]:
    """Remove containers or pods, running or not, whose owner is dead; return them.

    An owner is dead when it ran on this very host, since its last boot and in this pid namespace,
    and its pid is gone or has passed to another process. Containers and pods of other hosts, and
    those that anyspawn did not make, are never touched. Several processes can do this at the same
    time.

    Args:
        mode: ``docker_run`` for containers, ``kubectl_run`` for pods.
        dry_run: Only return them.
        kept: Also remove containers that were meant to stay: those that ``ContainerManager.create``
            made without ``remove_on_exit``, and those of ``anyspawn box --keep``. Default: they
            stay.
        all_boots: Also remove those that processes of this host made before its last boot. Default:
            they stay.
        docker_path: The docker client.
        kubectl_path: The Kubernetes client.
        kubeconfig: A kubeconfig file. Default: kubectl's own.
        context: A context of the kubeconfig. Default: the current one.
        namespace: The namespace of the pods. Default: all namespaces.

    Raises:
        SpawnError: The daemon or the cluster did not answer, or did not remove one.
    """
    if mode == "docker_run":
        return await _reap_containers(docker_path, dry_run=dry_run, kept=kept, all_boots=all_boots)
    if mode != "kubectl_run":
        raise ConfigError(f"mode must be 'docker_run' or 'kubectl_run', not {mode!r}")
    kubectl = [kubectl_path]
    kubectl += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    kubectl += [f"--context={context}"] if context else []
    return await _reap_pods(kubectl, namespace, dry_run=dry_run, all_boots=all_boots)


async def _reap_containers(
    docker_path: str, *, dry_run: bool, kept: bool, all_boots: bool
) -> list[Orphan]:
    podman = await is_podman(docker_path, [])
    label = "(index .Labels {})" if podman else "(.Label {})"
    fields = (".ID", ".Names", ".Image", ".State", *(label.format(f'"{name}"') for name in _LABELS))
    form = "[" + ",".join(f"{{{{json {field}}}}}" for field in fields) + "]"
    argv = [docker_path, "ps", "-a", "--no-trunc", "--filter", f"label={_LABEL}", "--format", form]
    listed = await _ask(*argv)
    if listed.error is not None:
        raise _failed(listed, listed.error)
    orphans = []
    for line in listed.text.split("\n"):
        about = json.loads(line, strict=False) if line.strip() else ()
        if about and is_dead(about[4] or "", all_boots=all_boots) and (kept or about[5] != "false"):
            orphans.append(Orphan(*map(_text, about[:5])))
    if orphans and not dry_run:
        failed = await remove(docker_path, *(orphan.id for orphan in orphans), podman=podman)
        if failed is not None:
            raise failed
    return orphans


def _text(value: object) -> str:
    """Return a field that docker gives as a text and podman as a list."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


async def remove(docker_path: str, *containers: str, podman: bool) -> SpawnError | None:
    """Remove containers, running or not; return why that failed.

    Those that are gone, and those that others remove at the same time, are not failures.
    """
    left, until = list(containers), anyio.current_time() + _TIMEOUT
    while True:
        removed = await _ask(*remove_argv(docker_path, *left, podman=podman))
        if removed.error is None:
            return None
        argv = [docker_path, "container", "inspect", "--format", "{{.Id}} {{.Name}}", *left]
        seen = await _ask(*argv)
        if seen.error is not None and b"o such " not in seen.stderr:
            return _failed(removed, removed.error)
        left = [line.partition(" ")[0] for line in seen.text.splitlines() if line.strip()]
        if not left:
            return None
        if b"already in progress" not in removed.stderr or anyio.current_time() > until:
            return _failed(removed, removed.error)
        await anyio.sleep(_PAUSE)


async def _ask(*argv: str) -> Completed:
    """Run a docker command."""
    launch = Launch(argv=argv, runner="docker", install=INSTALL)
    began = anyio.current_time()
    return await run(launch, Command(argv), mode="docker", began=began, timeout=_TIMEOUT)


async def _reap_pods(
    kubectl: list[str], namespace: str | None, *, dry_run: bool, all_boots: bool
) -> list[Orphan]:
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    listed = await spawn(
        [*kubectl, "get", "pods", *where, "-l", _LABEL, "-o", "json"], timeout=_TIMEOUT
    )
    if listed.error is not None:
        raise _failed(listed, listed.error, _kubectl.failure)
    orphans: dict[str, list[Orphan]] = {}
    for pod in json.loads(listed.stdout)["items"]:
        about = pod["metadata"]
        owner = (about.get("annotations") or {}).get(_LABEL, "")
        if is_dead(owner, all_boots=all_boots) and not about.get("deletionTimestamp"):
            image = pod["spec"]["containers"][0]["image"]
            orphan = Orphan(
                about["uid"],
                f"{about['namespace']}/{about['name']}",
                image,
                pod["status"]["phase"],
                owner,
            )
            orphans.setdefault(about["namespace"], []).append(orphan)
    for space, found in orphans.items() if not dry_run else ():
        names = [orphan.name.partition("/")[2] for orphan in found]
        argv = [
            *kubectl,
            "delete",
            "pod",
            "-n",
            space,
            "--now",
            "--wait=false",
            "--ignore-not-found",
            *names,
        ]
        removed = await spawn(argv, timeout=_TIMEOUT)
        if removed.error is not None:
            raise _failed(removed, removed.error, _kubectl.failure)
    return [orphan for found in orphans.values() for orphan in found]


def _failed(
    done: Completed, error: SpawnError, read: Callable[..., TransportError] = failure
) -> SpawnError:
    return (
        read(done.stderr.decode(errors="replace"), done.returncode, started=False)
        if done.stderr
        else error
    )
