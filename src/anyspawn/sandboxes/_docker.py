"""What both docker sandboxes know: what the client's own failures mean."""

from __future__ import annotations

from anyspawn.exceptions import TransportError, TransportKind

__all__ = ["INSTALL", "failure", "last_words"]

INSTALL = "install the docker CLI (https://docs.docker.com/engine/install/), or set docker_path"

_IMAGE = "pull the image first, or set pull to 'missing'"
_DAEMON = "start the daemon, or set DOCKER_HOST"
_SAYINGS: tuple[tuple[str, TransportKind, str], ...] = (
    # what docker, podman and their daemons say, before anything runs; what broke; what to do
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
    (
        "permission denied while trying to connect",
        "unreachable",
        "let this user use the daemon's socket (group docker)",
    ),
    ("invalid reference format", "image", "correct the image's name"),
    ("unable to find user", "other", "correct user"),
    ("unknown flag", "other", "correct extra_args; this client does not know the flag"),
    ("bind source path does not exist", "other", "correct mounts"),
)


def failure(text: str, code: int | None, *, started: bool | None) -> TransportError:
    """Return the client's failure, as the end of its stderr tells it.

    Args:
        text: What the client wrote to stderr.
        code: Its status.
        started: Whether the program ran, where the text does not say.
    """
    said = last_words(text)
    for words, kind, advice in _SAYINGS:
        if words in text:
            began = False if started is None else started
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
