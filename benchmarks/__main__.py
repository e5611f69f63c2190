"""Compare anyspawn with its alternatives, and write one report: ``python -m benchmarks``.

A whole run takes some 25 minutes, and writes docs/benchmarks.md with its figures and plots. A part
of one (``--quick``, ``--only``) writes to build/bench, unless told where; ``--only P --out docs``
replaces the figures of some places of the last whole run. Ctrl-C and SIGTERM remove what the run
has made.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from attrs import asdict

from benchmarks import machine
from benchmarks.measure import QUICK, Settings
from benchmarks.places import PLACES
from benchmarks.report import render, render_plots
from benchmarks.run import ROOT, import_time, run_place


def measure(names: list[str], settings: Settings) -> dict[str, Any]:
    """Return all that a run finds in some places, as plain data."""
    began, run = time.monotonic(), uuid.uuid4().hex[:8]
    found: dict[str, Any] = {"about": machine.about(), "settings": asdict(settings)}
    found["import"] = import_time(9)
    found["places"] = {}
    for name in names:
        place = PLACES[name]
        about = {
            "title": place.title,
            "patience": place.patience,
            "output": place.output,
            "files": place.files,
            "stdin": {peer.name: peer.stdin for peer in place.peers},
        }
        found["places"][name] = about | run_place(place, settings, run)
    found["minutes"] = (time.monotonic() - began) / 60
    return found


def write(found: dict[str, Any], folder: Path) -> None:
    """Write the page, the figures and the plots."""
    beside = folder / "benchmarks"
    beside.mkdir(parents=True, exist_ok=True)
    (beside / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, plot in render_plots(found).items():
        (beside / name).write_text(plot)
    (folder / "benchmarks.md").write_text(render(found))
    print(f"{folder / 'benchmarks.md'}, {found['minutes']:.1f} minutes")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round on asyncio, no memory: 3 minutes"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PLACES),
        default=[],
        metavar="PLACE",
        help=", ".join(PLACES),
    )
    parser.add_argument("--out", type=Path, help="the folder to write to")
    parser.add_argument(
        "--render", action="store_true", help="measure nothing: write the page again from its JSON"
    )
    given = parser.parse_args(argv)
    part = given.quick or given.only
    folder = given.out or (ROOT / "build" / "bench" if part and not given.render else ROOT / "docs")
    if given.render:
        write(json.loads((folder / "benchmarks" / "results.json").read_text()), folder)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        found = measure(given.only or list(PLACES), QUICK if given.quick else Settings())
        before = folder / "benchmarks" / "results.json"
        if given.only and before.exists():
            whole, day = json.loads(before.read_text()), found["about"]["day"]
            apart = {name: place | {"apart": day} for name, place in found["places"].items()}
            found = whole | {"places": whole["places"] | apart}
        write(found, folder)


if __name__ == "__main__":
    main()
