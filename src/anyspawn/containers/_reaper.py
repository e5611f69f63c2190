"""Containers and pods whose owner is dead are removed; nobody else's ever are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal

from attrs import frozen

from anyspawn._call import spawn
from anyspawn._model import Completed
from anyspawn._owner import is_dead
from anyspawn.argv.docker import is_podman
from anyspawn.exceptions import ConfigError, SpawnError, TransportError
from anyspawn.sandboxes import _kubectl
from anyspawn.sandboxes._docker import failure

__all__ = ["Orphan", "reap_orphans"]

_LABEL = "io.anyspawn.owner"
_TIMEOUT = 30.0


@frozen
class Orphan:
    """A container or a pod whose owner is dead.

    Args:
        id: Its id.
        name: Its name; a pod's with its namespace in front: ``default/anyspawn-...``.
        image: Its image.
        state: ``running``, ``exited``, ``created`` and so on; a pod's phase.
        owner: Who made it: host, pid and start time.
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
    docker_path: str = "docker",
    kubectl_path: str = "kubectl",
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
) -> list[Orphan]:
    """Remove containers or pods, running or not, whose owner is dead; return them.

    An owner is dead when it ran on this very host, since its last boot and in this pid namespace,
    and its pid is gone or has passed to another process. What other hosts made, and what anyspawn
    did not make, is never touched.

    Args:
        mode: ``docker_run`` for containers, ``kubectl_run`` for pods.
        dry_run: Only return them.
        docker_path: The docker client.
        kubectl_path: The Kubernetes client.
        kubeconfig: A kubeconfig file. Default: kubectl's own.
        context: A context of the kubeconfig. Default: the current one.
        namespace: Where to look for pods. Default: in all namespaces.

    Raises:
        SpawnError: The daemon or the cluster could not be asked, or did not remove one.
    """
    if mode == "docker_run":
        return await _reap_containers(docker_path, dry_run=dry_run)
    if mode != "kubectl_run":
        raise ConfigError(f"mode must be 'docker_run' or 'kubectl_run', not {mode!r}")
    kubectl = [kubectl_path]
    kubectl += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    kubectl += [f"--context={context}"] if context else []
    return await _reap_pods(kubectl, namespace, dry_run=dry_run)


async def _reap_containers(docker_path: str, *, dry_run: bool) -> list[Orphan]:
    label = (
        f'{{{{index .Labels "{_LABEL}"}}}}'
        if is_podman(docker_path)
        else f'{{{{.Label "{_LABEL}"}}}}'
    )
    form = f"{{{{.ID}}}}\t{{{{.Names}}}}\t{{{{.Image}}}}\t{{{{.State}}}}\t{label}"
    argv = [docker_path, "ps", "-a", "--no-trunc", "--filter", f"label={_LABEL}", "--format", form]
    listed = await spawn(argv, timeout=_TIMEOUT)
    if listed.error is not None:
        raise _failed(listed, listed.error)
    found = [Orphan(*line.split("\t")) for line in listed.stdout.decode().splitlines()]
    orphans = [orphan for orphan in found if is_dead(orphan.owner)]
    if orphans and not dry_run:
        removed = await spawn(
            [docker_path, "rm", "-f", "-v", *(orphan.id for orphan in orphans)], timeout=_TIMEOUT
        )
        if (
            removed.error is not None and b"No such container" not in removed.stderr
        ):  # another reaper was quicker
            raise _failed(removed, removed.error)
    return orphans


async def _reap_pods(kubectl: list[str], namespace: str | None, *, dry_run: bool) -> list[Orphan]:
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    listed = await spawn(
        [*kubectl, "get", "pods", *where, "-l", _LABEL, "-o", "json"], timeout=_TIMEOUT
    )
    if listed.error is not None:
        raise _failed(listed, listed.error, _kubectl.failure)
    orphans: dict[str, list[Orphan]] = {}
    for pod in json.loads(listed.stdout)["items"]:
        about = pod["metadata"]
        owner = about.get("annotations", {}).get(_LABEL, "")
        if is_dead(owner) and not about.get("deletionTimestamp"):
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
