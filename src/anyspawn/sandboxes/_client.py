"""The docker client: whether it is podman, and how to keep its configured proxies out of
containers.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs

from anyspawn._env import Env
from anyspawn._model import Launch
from anyspawn.argv.docker import named_podman
from anyspawn.exceptions import TransportError
from anyspawn.sandboxes._docker import beside

__all__ = ["is_podman", "without_proxies"]

_ASK_TIMEOUT = 5.0
_KEPT = ("currentContext", "HttpHeaders")
"""The settings that matter to a client that makes a container and does not pull."""


async def is_podman(docker_path: str, known: list[bool], timeout: float = _ASK_TIMEOUT) -> bool:
    """Whether a client is podman: by its name or, because podman may be called docker, by its
    version.

    Args:
        docker_path: The client.
        known: Its earlier answer; it is asked once.
        timeout: Seconds to wait for its answer.
    """
    if named_podman(docker_path):
        return True
    if not known:
        done = await beside([docker_path, "--version"], timeout=min(timeout, _ASK_TIMEOUT))
        if done.error is not None:
            return False
        known.append(done.text.lower().startswith("podman"))
    return known[0]


def without_proxies(launch: Launch, *, podman: bool) -> Launch:
    """Return a launch whose container gets only the proxies of the command's variables.

    Raises:
        TransportError: Another configuration cannot be written.
    """
    if podman:
        argv = (*launch.argv[:2], "--http-proxy=false", *launch.argv[2:])
        moved = tuple(attrs.evolve(fd, index=fd.index + 1) for fd in launch.fd_args)
        return attrs.evolve(launch, argv=argv, fd_args=moved)
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError):
        return launch  # docker reports what is wrong with it
    if not isinstance(config, dict) or not config.get("proxies"):
        return launch
    other = _other_configuration(os.path.abspath(folder), config)
    return attrs.evolve(launch, env=Env({**launch.env, "DOCKER_CONFIG": other}))


def _other_configuration(folder: str, config: Mapping[str, Any]) -> str:
    """Return a folder with the contexts and certificates of a configuration, and no proxies.

    Its name is a hash of its contents, so that it is made once.
    """
    text = json.dumps({name: config[name] for name in _KEPT if name in config})
    name = hashlib.blake2b(f"{folder}\n{text}".encode(), digest_size=12).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    beside = (os.path.join(cache, "anyspawn"), f"{tempfile.gettempdir()}/anyspawn-{os.getuid()}")
    for parent in beside:
        other = os.path.join(parent, f"docker-{name}")
        with suppress(OSError):
            os.makedirs(other, mode=0o700, exist_ok=True)
            for path in (parent, other):
                about = os.lstat(path)
                if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise PermissionError(path)
            _fill(other, folder, text)
            return other
    raise TransportError(
        "docker's configuration has proxies, which containers must not get, and a copy without them "
        f"cannot be written: make {beside[0]} writable, or set XDG_CACHE_HOME",
        started=False,
        kind="resources",
    )


def _fill(other: str, folder: str, text: str) -> None:
    for name in os.listdir(folder):
        if name != "config.json":
            with suppress(FileExistsError):
                os.symlink(os.path.join(folder, name), os.path.join(other, name))
    file = os.path.join(other, "config.json")
    if not os.path.exists(file):
        fd, temporary = tempfile.mkstemp(dir=other)
        with open(fd, "w", encoding="utf-8") as new:
            new.write(text)
        os.replace(temporary, file)
