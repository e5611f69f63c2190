"""The aims, as data: each is a figure of one peer, with its lower or upper bound."""

from __future__ import annotations

import statistics
from typing import Any, Literal

from attrs import frozen

from benchmarks.peer import Loop

Figure = Literal["ratio", "rate", "ms"]
WORDS = {"ratio": "times the first peer's calls/s", "rate": "calls/s", "ms": "ms median"}


@frozen
class Aim:
    """An aim.

    Args:
        place: Where.
        peer: Whose figure.
        case: The calls in flight, ``apart``, ``burst`` or ``output``.
        figure: ``ratio`` to the place's first peer, ``rate`` in calls/s, both at least; ``ms`` of
            latency, at most.
        bound: What it has to reach.
        loop: On which event loop.
    """

    place: str
    peer: str
    case: str
    figure: Figure
    bound: float
    loop: Loop = "asyncio"

    def met(self, seen: float) -> bool:
        return seen <= self.bound if self.figure == "ms" else seen >= self.bound


_DIRECT, _EXEC = "anyspawn Direct", "anyspawn DockerExec(resident=8)"
IMPORT_MS = 15.0
"""What `import anyspawn` may take over its two dependencies."""

AIMS = (
    Aim("local", _DIRECT, "1", "ratio", 1 / 1.05),
    Aim("local", _DIRECT, "1", "ratio", 1 / 1.05, "trio"),
    Aim("local", _DIRECT, "32", "ratio", 1.35),
    Aim("local", _DIRECT, "32", "ratio", 1.25, "trio"),
    Aim("local", _DIRECT, "output", "ratio", 1.0),
    Aim("local", _DIRECT, "output", "ratio", 1.0, "trio"),
    Aim("bubblewrap", "anyspawn Bubblewrap", "1", "ratio", 0.95),
    Aim("bubblewrap", "anyspawn Bubblewrap", "1", "ratio", 0.95, "trio"),
    Aim("bubblewrap", "anyspawn Bubblewrap", "16", "ratio", 0.95),
    Aim("bubblewrap", "anyspawn Bubblewrap", "16", "ratio", 0.95, "trio"),
    Aim("docker_exec", "anyspawn DockerExec(resident=0)", "1", "ratio", 0.95),
    Aim("docker_exec", "anyspawn DockerExec(resident=0)", "16", "ratio", 0.95),
    Aim("docker_exec", _EXEC, "1", "ratio", 15),
    Aim("docker_exec", _EXEC, "1", "ms", 4),
    Aim("docker_exec", _EXEC, "16", "rate", 500),
    Aim("kubectl_exec", "anyspawn KubectlExec(resident=8)", "1", "ratio", 25),
    Aim("docker_run", "anyspawn DockerRun(resident=1)", "apart", "ratio", 4),
    Aim("docker_run", "anyspawn DockerRun(resident=8)", "burst", "ratio", 4),
    Aim("docker_run", "anyspawn DockerRun(resident=8)", "1", "ratio", 4),
)


def seen(aim: Aim, rows: list[dict[str, Any]]) -> float | None:
    """Return the figure that an aim is about, or None where it was not measured."""
    for row in rows:
        if (row["loop"], row["peer"], row["case"]) == (
            aim.loop,
            aim.peer,
            aim.case,
        ) and "rounds" in row:
            if aim.figure == "ratio":
                return float(row["ratio"][0]) if "ratio" in row else None
            return (
                statistics.median(row["rounds"])
                if aim.figure == "rate"
                else float(row["p50"]) * 1000
            )
    return None
