"""A process that measures or probes, and writes its results to a file: ``python -m benchmarks.child
ORDER.json``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure, probe
from benchmarks.peer import Target
from benchmarks.places import PLACES


def main(order: Path) -> None:
    about: dict[str, Any] = json.loads(order.read_text())
    place, target = PLACES[about["place"]], Target(**about["target"])

    def report(found: dict[str, Any]) -> None:
        new = order.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.rename(order.with_suffix(".out"))

    logging.disable(logging.ERROR)
    if "probe" in about:
        peer = next(peer for peer in place.peers if peer.name == about["peer"])
        probe.run(about["probe"], place, peer, about["loop"], target, about["seconds"], report)
    else:
        report(measure.run(place, about["loop"], target, measure.Settings(**about["settings"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # threads of blocking libraries that were left behind would hold it up
