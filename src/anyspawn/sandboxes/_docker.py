"""What both docker sandboxes know: what the client's own failures mean."""

from __future__ import annotations

from anyspawn.exceptions import TransportError

__all__ = ["INSTALL", "failure", "last_words"]

INSTALL = "install the docker CLI (https://docs.docker.com/engine/install/), or set docker_path"

_KINDS = (
    # what docker, podman and their daemons say; whether the program was started; what to do
    ("No such image", False, "pull the image first, or set pull to 'missing'"),
    ("image not known", False, "pull the image first, or set pull to 'missing'"),
    ("Unable to find image", False, "pull the image first, or set pull to 'missing'"),
    ("No such container", False, "start the container, or correct its name"),
    ("no such container", False, "start the container, or correct its name"),
    ("is not running", False, "start the container: docker start"),
    ("can only create exec sessions on running containers", False, "start the container"),
    ("is paused", False, "resume the container: docker unpause"),
    ("Cannot connect to the Docker daemon", False, "start the daemon, or set DOCKER_HOST"),
    ("error during connect", False, "start the daemon, or set DOCKER_HOST"),
    (
        "permission denied while trying to connect",
        False,
        "let this user use the daemon's socket (group docker)",
    ),
    ("is restarting", False, "wait until the container runs"),
    ("invalid reference format", False, "correct the image's name"),
    ("unable to find user", False, "correct user"),
    ("unknown flag", False, "correct extra_args; this client does not know the flag"),
    ("bind source path does not exist", False, "correct mounts"),
)


def failure(text: str, code: int | None, *, started: bool | None) -> TransportError:
    """Return the client's failure, as the end of its stderr tells it.

    Args:
        text: What the client wrote to stderr.
        code: Its status.
        started: Whether the program ran, where the text does not say.
    """
    said = last_words(text)
    for words, known, advice in _KINDS:
        if words in text:
            return TransportError(
                f"{said}; {advice}", started=known if started is None else started
            )
    if code is not None and code < 0:
        return TransportError(
            f"the docker client was ended from outside by signal {-code}", started=started
        )
    return TransportError(
        said or f"the docker client ended with status {code} and no word", started=started
    )


def last_words(text: str) -> str:
    """Return the line in which a client says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or line.startswith("docker: ")]
    line = (told or lines or [""])[0]
    return line.removeprefix("docker: ")[:500]
