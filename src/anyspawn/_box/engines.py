"""Boxes in containers and pods: errors that say that the box has ended, and boxes that another
process has opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs
from attrs import frozen

from anyspawn._box.places import Place
from anyspawn._model import Command, Completed
from anyspawn._spawn.tasks import see_through
from anyspawn.argv.docker import remove_argv
from anyspawn.argv.kubectl import CONTAINER, kubectl_argv
from anyspawn.exceptions import ConfigError, TransportError
from anyspawn.sandboxes._kubectl import pod_state
from anyspawn.sandboxes.direct import Direct
from anyspawn.sandboxes.docker_exec import DockerExec
from anyspawn.sandboxes.docker_run import DockerRun
from anyspawn.sandboxes.kubectl_exec import KubectlExec
from anyspawn.sandboxes.kubectl_run import KubectlRun

__all__ = ["attached", "in_container", "in_pod"]

_ASK_TIMEOUT = 5.0
_END_TIMEOUT = 30.0
_KINDS: dict[str, type[Any]] = {
    "docker_run": DockerRun,
    "docker_exec": DockerExec,
    "kubectl_run": KubectlRun,
    "kubectl_exec": KubectlExec,
}
_FIELDS = {
    "docker_run": {"workdir"},
    "docker_exec": {"workdir", "user"},
    "kubectl_run": {"workdir", "namespace", "context"},
    "kubectl_exec": {"workdir", "namespace", "container", "context"},
}
_OURS = re.compile("anyspawn-[0-9a-f]{32}")
"""The name of a container or a pod that was made for a box."""


@frozen(kw_only=True)
class _InContainer(DockerExec):
    """Runs commands in the container of a box."""

    async def judged(self, completed: Completed) -> Completed:
        """Return the outcome; if the box has ended, its error says so."""
        if isinstance(completed.error, TransportError):
            look = ("ps", "-q", "--no-trunc", "--filter", f"name=^{self.container}$")
            found = await _run((self.docker_path, *look), _ASK_TIMEOUT)
            if found.error is None and not found.text.strip():
                return _ended(completed, completed.error, f"container {self.container}")
        return await super().judged(completed)


@frozen(kw_only=True)
class _InPod(KubectlExec):
    """Runs commands in the pod of a box."""

    async def judged(self, completed: Completed) -> Completed:
        """Return the outcome; if the box has ended, its error says so."""
        if isinstance(completed.error, TransportError):
            look = ("get", "pod", str(self.pod), "--ignore-not-found", "-o", "json")
            found = await self._ask(*look)
            text = found.text.strip()
            gone = not text or not pod_state(json.loads(text), self.container).running
            if found.error is None and gone:
                return _ended(completed, completed.error, f"pod {self.pod}")
        return await super().judged(completed)


def _ended(completed: Completed, error: TransportError, what: str) -> Completed:
    when = f"ended while {completed.argv[0]!r} ran" if error.started else "has ended"
    message = (
        f"the box {when}: its {what} is gone, with its files; its opener closed it or was killed, or "
        "somebody removed it"
    )
    return attrs.evolve(
        completed, error=TransportError(message, started=error.started, kind="target")
    )


def in_container(name: str, like: DockerRun | None) -> DockerExec:
    """Return a sandbox in the container of a box.

    Args:
        name: The container.
        like: The sandbox that the box was opened with.
    """
    names = ("name", "default_timeout", "max_concurrent", "docker_path", "user")
    fields = {"name": "docker_run"} if like is None else _taken(like, names)
    return _InContainer(name, supervisor="required", shared="trusted", **fields)


def in_pod(name: str, like: KubectlRun | None, **fields: str) -> KubectlExec:
    """Return a sandbox in the pod of a box.

    Args:
        name: The pod.
        like: The sandbox that the box was opened with.
        fields: Fields that replace those of ``like``.
    """
    names = ("name", "default_timeout", "max_concurrent")
    where = ("kubectl_path", "kubeconfig", "namespace", "context")
    taken = {"name": "kubectl_run"} if like is None else _taken(like, (*names, *where))
    fixed = {"container": CONTAINER, "supervisor": "required", "shared": "trusted"}
    return _InPod(name, **{**taken, **fields, **fixed})


def _taken(like: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(like, name) for name in names}


@asynccontextmanager
async def attached(box_id: str, sandbox: Any, *, ends: bool) -> AsyncIterator[Place]:
    """Give the place of a box that another process has opened, for as long as the block.

    Args:
        box_id: The box's id.
        sandbox: The sandbox that it was opened with; ``None``: one with the defaults.
        ends: Whether it ends with the block.

    Raises:
        ConfigError: The id is not that of a box that can be attached to, or the sandbox is of
            another mode.
        TransportError: It could not be ended.
    """
    mode, name, fields = _read(box_id)
    workdir = fields.pop("workdir", None)
    if sandbox is not None and not isinstance(sandbox, _KINDS[mode]):
        raise ConfigError(
            f"sandbox: the box was opened with a {_KINDS[mode].__name__}, not a "
            f"{type(sandbox).__name__}; pass such a sandbox, or leave it out"
        )
    if ends and mode not in ("docker_run", "kubectl_run"):
        raise ConfigError(
            f"ends: the container of a {mode} box existed before it, and stays; leave ends out"
        )
    one: Any
    if mode == "docker_run":
        one = in_container(name, sandbox)
        end = remove_argv(one.docker_path, name)
    elif mode == "kubectl_run":
        one = in_pod(name, sandbox, **fields)
        end = kubectl_argv(one, "delete", "pod", name, "--now", "--ignore-not-found")
    elif sandbox is not None:
        target = {"container": name} if mode == "docker_exec" else {"pod": name, "selector": None}
        # Not closed here: its residents belong to the given sandbox.
        yield _place(sandbox._changed(**target, **fields), mode, name, fields, workdir)  # noqa: SLF001  one of us
        return
    else:
        one = _KINDS[mode](name, **fields)
    try:
        async with one:
            yield _place(one, mode, name, fields, workdir)
    finally:
        if ends:
            await see_through(lambda: _end(end), 2 * _END_TIMEOUT)


def _place(
    sandbox: Any, mode: str, name: str, fields: Mapping[str, str], workdir: str | None
) -> Place:
    return Place(sandbox=sandbox, mode=mode, name=name, reached_by=fields, workdir=workdir)


def _read(box_id: str) -> tuple[str, str, dict[str, str]]:
    """Return the mode, the name and the rest of a box's id."""
    if not isinstance(box_id, str):
        raise TypeError(f"box_id must be a str, not {type(box_id).__name__}")
    mode, _, rest = box_id.partition(":")
    name, _, said = rest.partition("?")
    name = unquote(name)
    if mode in ("direct", "bubblewrap"):
        raise ConfigError(
            f"box_id: a box of {mode} belongs to one process; you can attach to those of "
            "docker_run, docker_exec, kubectl_run and kubectl_exec"
        )
    try:
        fields = dict(parse_qsl(said, strict_parsing=True)) if said else {}
    except ValueError:
        fields = {"": ""}
    if (
        mode not in _KINDS
        or not name
        or not fields.keys() <= _FIELDS[mode]
        or not fields.get("workdir", "/").startswith("/")
        or (mode in ("docker_run", "kubectl_run") and not _OURS.fullmatch(name))
    ):
        raise ConfigError(f"box_id: {box_id!r} is not the id of a box; pass Box.id unchanged")
    return mode, name, fields


async def _end(argv: tuple[str, ...]) -> None:
    done = await _run(argv, _END_TIMEOUT)
    if done.error is not None and "o such container" not in done.stderr_text:
        raise TransportError(f"the box could not be ended: {done.error}", kind="unreachable")


async def _run(argv: tuple[str, ...], seconds: float) -> Completed:
    return await Direct().spawn(Command(argv, timeout=seconds))
