"""Shared by both docker sandboxes: the meaning of the client's own failures."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from anyspawn._model import Completed
from anyspawn.exceptions import NotStartedError, TransportError, TransportKind

__all__ = [
    "CANNOT_BEGIN",
    "INSTALL",
    "beside",
    "events",
    "failure",
    "last_words",
    "no_user",
    "refused_by_init",
    "refused_by_runtime",
]

INSTALL = "install the docker CLI (https://docs.docker.com/engine/install/), or set docker_path"

CANNOT_BEGIN = ("Failed to initialize: ", "unable to resolve docker endpoint")
"""Messages of a client that cannot even start, with status 1."""

_ASK_TIMEOUT = 5.0
_IMAGE = "pull the image first, or set pull to 'missing'"
_DAEMON = "start the daemon, or set DOCKER_HOST"
_CLIENT = "correct DOCKER_CONTEXT, DOCKER_HOST and the certificates"
_SAYINGS: tuple[tuple[str, TransportKind, str], ...] = (
    # messages of docker, podman and their daemons before anything runs; the kind of failure; what
    # to do
    ("No such image", "image", _IMAGE),
    ("image not known", "image", _IMAGE),
    ("Unable to find image", "image", _IMAGE),
    ("No such container", "target", "start the container, or correct its name"),
    ("no such container", "target", "start the container, or correct its name"),
    ("is not running", "target", "start the container: docker start"),
    ("can only create exec sessions on running containers", "target", "start the container"),
    ("is paused", "target", "resume the container: docker unpause"),
    ("is restarting", "target", "wait until the container runs"),
    ("Cannot connect to the Docker daemon", "unreachable", _DAEMON),
    ("error during connect", "unreachable", _DAEMON),
    ("unable to resolve docker endpoint", "runner", _CLIENT),
    (
        "permission denied while trying to connect",
        "unreachable",
        "let this user use the daemon's socket (group docker)",
    ),
    ("invalid reference format", "image", "correct the image's name"),
    ("unknown flag", "other", "correct extra_args; this client does not know the flag"),
    ("bind source path does not exist", "other", "correct mounts"),
)


_MISSING = "No such file or directory"
_INIT = re.compile(
    r"(?:WARNING: .*\r?\n)*"
    r"(?:\[FATAL tini \(\d+\)\] exec (?P<program>.*) failed: (?P<why>.*?)|"
    r"exec (?P<other>.*): exec format error)\r?\n"
)
_INITS_STATUS = {_MISSING: 127, "Permission denied": 126}
_RUNTIME = re.compile(r'(?:process|failed): exec: \\?"|executable file .* not found')


def refused_by_init(program: str, code: int, said: str) -> int | None:
    """Return the status that a shell would give for a program that could not be executed, if the
    container's init or its runtime says so.

    Args:
        program: The program.
        code: The container's status.
        said: Everything that the container wrote.

    Returns:
        126 or 127; ``None`` if nothing says so.
    """
    found = _INIT.fullmatch(said)
    if found is None or (found["program"] or found["other"]) != program:
        return None
    if found["why"] and _INITS_STATUS.get(found["why"], 1) != code:
        return None
    return 127 if found["why"] == _MISSING else 126


def no_user(said: str) -> NotStartedError | None:
    """Return the error for a user or group that the container does not have, if docker says so."""
    found = re.search("unable to find (?:user|group) .*", said)
    return NotStartedError(f"{found[0].strip()}; correct user", kind="user") if found else None


def refused_by_runtime(said: str) -> int | None:
    """Return the status that a shell would give for a program that could not be executed, if docker
    says that it could not start the container for that reason.
    """
    if not _RUNTIME.search(said):
        return None
    missing = "executable file" in said or "no such file or directory" in said.lower()
    return 127 if missing else 126


async def _daemons_clock(docker_path: str) -> str | None:
    """Return the time on the daemon's clock, which its events use; ``None`` if it does not
    answer.
    """
    done = await beside([docker_path, "info", "--format", "{{.SystemTime}}"], timeout=_ASK_TIMEOUT)
    return None if done.error is not None else done.text.strip() or None


async def events(
    docker_path: str, *filters: str, form: str, seconds: Callable[[], float] | None = None
) -> list[str] | None:
    """Return the events that docker's daemon still keeps, a line for each.

    Args:
        docker_path: The client.
        filters: Which events to ask for.
        form: The template of a line.
        seconds: How far back to look. Default: all events.

    Returns:
        The lines; ``None`` if the daemon does not answer.
    """
    now = await _daemons_clock(docker_path)
    if now is None:
        return None
    since = "1"
    if seconds is not None:
        since = (datetime.fromisoformat(now) - timedelta(seconds=seconds())).isoformat()
    argv = [docker_path, "events", f"--since={since}", f"--until={now}", "--format", form]
    for name in filters:
        argv += ["--filter", name]
    done = await beside(argv, timeout=_ASK_TIMEOUT)
    return None if done.error is not None else done.text.splitlines()


async def beside(argv: list[str], **options: Any) -> Completed:
    """Run one of the sandbox's own commands, such as ``docker version``."""
    from anyspawn._call import spawn

    return await spawn(argv, **options)


_UNDER_WAY = re.compile(r"/(?:wait|start|attach|resize)\b|/exec/[0-9a-f]+/")
"""Requests that the client sends when a program runs or is about to."""


def failure(text: str, code: int | None, *, started: bool | None) -> TransportError:
    """Return the client's failure, read from the end of its stderr.

    Args:
        text: What the client wrote to stderr.
        code: Its status.
        started: Whether the program ran, if the text does not say.
    """
    said = last_words(text)
    for words, kind, advice in _SAYINGS:
        if words in text:
            began = False if started is None and not _UNDER_WAY.search(text) else started
            return TransportError(f"{said}; {advice}", started=began, kind=kind)
    if code is not None and code < 0:
        message = f"the docker client was killed from outside by signal {-code}"
        return TransportError(message, started=started, kind="runner")
    message = said or f"the docker client exited with status {code} and said nothing"
    return TransportError(message, started=started)


def last_words(text: str) -> str:
    """Return the line in which a client says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or line.startswith("docker: ")]
    line = (told or lines or [""])[0]
    return line.removeprefix("docker: ")[:500]
