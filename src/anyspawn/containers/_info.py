"""docker's description of a container, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

__all__ = ["ContainerInfo", "Mount"]


@frozen(kw_only=True)
class Mount:
    """A file system that is mounted in a container.

    Args:
        type: ``bind``, ``volume`` or ``tmpfs``.
        source: The host's path, or the volume's.
        target: The path inside.
        writable: Whether it is writable.
    """

    type: str
    source: str
    target: str
    writable: bool


@frozen(kw_only=True)
class ContainerInfo:
    """A container as docker describes it.

    Args:
        id: Its id.
        name: Its name.
        image: The image that it was made from.
        state: ``created``, ``running``, ``paused``, ``restarting``, ``exited`` or ``dead``.
        exit_code: Its exit status; ``None`` until it has exited.
        oom: Whether it was killed for using too much memory.
        error: Why it could not be started; empty if it could.
        created: When it was made.
        started: When it was last started; ``None`` if never. Docker records the time after the
            start: a program that runs for milliseconds can finish before it.
        finished: When it last exited; ``None`` if never.
        labels: Its labels.
        mounts: What is mounted in it.
        tty: Whether it has a terminal.
        open_stdin: Whether its stdin can be written to.
        raw: The whole of docker's description.
    """

    id: str
    name: str
    image: str
    state: str
    exit_code: int | None
    oom: bool
    error: str
    created: datetime
    started: datetime | None
    finished: datetime | None
    labels: Mapping[str, str]
    mounts: tuple[Mount, ...]
    tty: bool
    open_stdin: bool
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> ContainerInfo:
        """Return the output of ``docker inspect`` as a value."""
        state, config = raw["State"], raw["Config"]
        ended = state["Status"] in {"exited", "dead", "stopped"}
        return cls(
            id=raw["Id"],
            name=raw["Name"].lstrip("/"),
            image=config.get("Image") or raw.get("ImageName", ""),
            state=state["Status"],
            exit_code=state["ExitCode"] if ended else None,
            oom=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            created=_moment(raw["Created"]) or datetime.fromtimestamp(0).astimezone(),
            started=_moment(state["StartedAt"]),
            finished=_moment(state["FinishedAt"]),
            labels=config.get("Labels") or {},
            mounts=tuple(
                Mount(
                    type=mount["Type"],
                    source=mount.get("Source", ""),
                    target=mount["Destination"],
                    writable=mount["RW"],
                )
                for mount in raw["Mounts"]
            ),
            tty=bool(config.get("Tty")),
            open_stdin=bool(config.get("OpenStdin")),
            raw=raw,
        )


def _moment(text: str) -> datetime | None:
    """Return a time from docker; ``None`` for year 1, which means never."""
    if text.startswith("0001"):
        return None
    head, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if dot else ""
    zone = rest[len(digits) :] if dot else ""
    return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}{zone}" if dot else text)
