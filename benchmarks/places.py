"""All measured places, by name."""

from __future__ import annotations

from benchmarks import boxes, containers, local, pods

PLACES = {
    place.name: place
    for place in (
        local.LOCAL,
        local.BUBBLEWRAP,
        containers.EXEC,
        containers.RUN,
        pods.EXEC,
        pods.RUN,
        boxes.LOCAL,
        boxes.DOCKER,
    )
}
