"""The page and the plots, made from the results of a run; nothing is measured here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks import plots, targets
from benchmarks.probe import HELD

Row = dict[str, Any]
Found = dict[str, Any]

OURS = "anyspawn"
_MIB = 2**20
_NONE = "-"
_STDIN = {"closed": "", "open": " ¹", "none": " ²"}
_INTRO = """\
# Benchmarks

How fast is anyspawn compared with the tool that you would use instead, and what does each leave
behind? One run on one machine measured all of them. The first plots show calls a second; higher is
better, and the scales are logarithmic. Solid lines are anyspawn, dashed lines are the others.
Below, a *peer* is one of these tools, or one mode of anyspawn.
"""
"""What the page begins with."""
_LEFT = """\
## What each leaves behind

How many processes still run after a call that went wrong:

- **timeout**: the program consists of three processes that do not exit, one of them in its own
  session, and the call times out.
- **held**: the program exits at once, but leaves a child that holds its stdout.
- **killed**: SIGKILL kills the caller while the three processes run. They are counted after 5 s, or
  as soon as none is left.

A call that has not returned 5 s after its timeout "did not return".
"""
_METHOD = """\
## How it is measured

`nox -s bench` measures, and writes this page, its plots and [the figures as
JSON](benchmarks/results.json). `-- --quick` takes a few minutes, and `-- --only local` measures one
kind of sandbox; both write to `build/bench` instead. `-- --render` writes the page again from the
JSON. What the machine does not have is left out, and the page says so.

- **Rounds.** For each table and event loop, a new process measures all peers in rounds. In each
  round, every peer has a turn, and another one begins. Ratios are taken within a round, so a
  machine whose speed changes favours nobody. "x" is a peer's calls/s as a multiple of those of the
  table's first peer: the median (least .. most) of the rounds.
- **A call** sends 1 KiB through `cat`. ¹ This peer can send stdin but cannot close it, so it runs
  `head -c 1024` instead. ² This peer cannot send stdin: the program writes 1 KiB by itself, which
  is less work.
- **Blocking libraries** run in threads, 64 at most. A peer's own timeout is used if it has one.
  Otherwise the caller stops waiting, which is all that an async program can do.
- **Calls apart** are made one at a time, with a second between them that does not count. In that
  second, a peer can start something in advance. **Calls in a burst** are five, one after the other,
  after such a second. Other cases make calls for 0.7 s. If a peer has started containers in
  advance, they serve a part of these calls; over a longer time, calls are as fast as docker starts
  containers.
- **A box** is a sandbox that keeps its files between calls. A call, writing and reading a file, and
  starting and ending a whole box are measured in ms; "x" is still how many times as fast a peer is
  as the first one. `LocalShellBackend` has no sandbox. It, `Direct`, llm-sandbox's bubblewrap and
  `deepagents-docker` keep the files in a folder of the host, which the caller reads and writes
  itself.
- **Lost output.** If a call's output does not have the right length, the peer fails the case.
- **Memory** is the peak of the caller and everything that it started on this host, with 16 calls in
  flight or during one large output, in a new process for each peer.
- **Processes left over** are counted everywhere on the machine, in containers too.
"""
_FIRST = ("local", "docker_exec", "kubectl_exec")
"""The places whose plots the page begins with."""


def render(found: Found) -> str:
    """Return the page in Markdown."""
    return "\n".join(_page(found))


def render_plots(found: Found) -> dict[str, str]:
    """Return the plots by their files' names."""
    files = {}
    for name, place in found["places"].items():
        if place.get("rows") and not place.get("files"):  # boxes: one call at a time
            rows = [
                row
                for row in place["rows"]
                if row["loop"] == place["rows"][0]["loop"] and "rounds" in row
            ]
            rates: dict[str, list[tuple[float, float]]] = {}
            for row in rows:
                if row["case"].isdigit():
                    rates.setdefault(row["peer"], []).append(
                        (float(row["case"]), statistics.median(row["rounds"]))
                    )
            title = f"{place['title']}: calls/s ({rows[0]['loop']})" if rows else place["title"]
            files[f"{name}.svg"] = plots.lines(title, "calls in flight", "calls/s", rates)
    return files


def _page(found: Found) -> Iterator[str]:
    places = found["places"]
    yield _INTRO
    first = [name for name in _FIRST if places.get(name, {}).get("rows")]
    for name in first:
        yield _plot(name, places[name])
    yield _LEFT
    yield from _leftovers(places)
    yield "## Where anyspawn is slower\n"
    yield from _behind(found)
    yield "## Aims\n"
    yield from _table(["aim", "seen", ""], _aims(found))
    for name, place in places.items():
        yield from _place(name, place, plot=name not in first)
    yield _METHOD
    about = found["about"]
    yield f"Measured on {about['day']}: {about['cores']} cores, {about['system']}, Python {about['python']}, docker {about['docker'] or _NONE}, "
    yield f"Kubernetes {about['kubernetes'] or _NONE}, load at the start {about['load']}; {found['minutes']:.0f} minutes. {_extent(found)}"
    yield (
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + "."
    )


def _plot(name: str, place: Found) -> str:
    return f"![{place['title']}: calls/s by calls in flight](benchmarks/{name}.svg)\n"


def _leftovers(places: dict[str, Found]) -> Iterator[str]:
    """Return a table of all places' peers, with what each left in each case."""
    rows: list[list[str]] = []
    for place in places.values():
        for peer, seen in place.get("probes", {}).items():
            cells = [_left(case, seen.get(case)) for case in ("timeout", "held", "killed")]
            if any(cell != _NONE for cell in cells):
                before = {row[0] for row in rows}
                rows.append(["" if place["title"] in before else place["title"], peer, *cells])
    yield from _table(["where", "peer", "timeout", "held", "killed"], rows)


def _left(case: str, seen: Found | None) -> str:
    if seen is None or "left" not in seen:
        return _NONE
    left = f"**{seen['left']}**" if seen["left"] else "0"
    late = case != "killed" and "did not return" in seen["outcome"]
    return f"{left}, did not return" if late else left


def _extent(found: Found) -> str:
    settings = found["settings"]
    rounds = f"at most {settings['rounds']} round{'s' if settings['rounds'] > 1 else ''} of {settings['seconds']:g} s"
    more = (
        " A quick look: take the figures for an order of magnitude."
        if settings["rounds"] == 1
        else ""
    )
    return f"{rounds.capitalize()} for each peer and case.{more}"


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    if not lines:
        yield "Nothing was measured.\n"
        return
    yield "| " + " | ".join(head) + " |"
    yield "| --- " * len(head) + "|"
    yield from lines
    yield ""


def _aims(found: Found) -> Iterator[list[str]]:
    for aim in targets.AIMS:
        place = found["places"].get(aim.place, {})
        seen = targets.seen(aim, place.get("rows", []))
        limit = "at most" if aim.figure == "ms" else "at least"
        name = f"{aim.peer}, {_what(aim.case)}, {aim.loop}: {limit} {aim.bound:.3g} {targets.WORDS[aim.figure]}"
        reason = place.get("missing", {}).get(aim.peer, "not measured in this run")
        yield [
            name,
            f"{seen:.3g}" if seen is not None else _NONE,
            _verdict(aim.met(seen)) if seen is not None else reason,
        ]
    if "import" in found:
        ms = found["import"]["ms"]
        name = f"`import anyspawn` over `import anyio, attrs`: at most {targets.IMPORT_MS:g} ms"
        yield [name, f"{ms:.1f}", _verdict(ms <= targets.IMPORT_MS)]


def _what(case: str) -> str:
    words = {
        "output": "large output",
        "apart": "calls apart",
        "burst": "calls in a burst",
        "life": "start and end",
    }
    does, _, size = case.partition(" ")
    if size:
        return f"{does} {_size(int(size))}"
    return words.get(case, f"{case} in flight")


def _of_box(case: str) -> bool:
    return case == "life" or " " in case


def _size(size: int) -> str:
    return f"{size // _MIB} MiB" if size >= _MIB else f"{size // 1024} KiB"


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _ratios(row: Row, other: Row) -> list[float]:
    return [one / two for one, two in zip(row["rounds"], other["rounds"], strict=False)]


def _behind(found: Found) -> Iterator[str]:
    lost = []
    for place in found["places"].values():
        rows = [row for row in place.get("rows", []) if "rounds" in row]
        for own in rows:
            if own["peer"].startswith(OURS):
                same = [
                    (statistics.median(_ratios(row, own)), row["peer"])
                    for row in rows
                    if not row["peer"].startswith(OURS)
                    and (row["loop"], row["case"]) == (own["loop"], own["case"])
                ]
                ahead = sorted((ratio, peer) for ratio, peer in same if ratio > 1)[::-1]
                if ahead:
                    names = ", ".join(f"{peer} ({ratio:.2f}x)" for ratio, peer in ahead)
                    case = _what(own["case"]) if _of_box(own["case"]) else own["case"]
                    lost.append([place["title"], own["peer"], own["loop"], case, names])
    yield "Every case in which another peer made more calls/s than this mode of anyspawn in the same rounds, and by how much:\n"
    yield from _table(["where", "mode", "loop", "in flight", "faster, by"], lost)


def _place(name: str, place: Found, *, plot: bool) -> Iterator[str]:
    yield f"## {place['title']}\n"
    if "apart" in place:
        yield f"Measured by itself, on {place['apart']}.\n"
    loops = list(dict.fromkeys(row["loop"] for row in place.get("rows", [])))
    if loops and plot and not place.get("files"):
        yield _plot(name, place)
    for loop in loops:
        yield f"{loop}:\n"
        yield from _speed(place, [row for row in place["rows"] if row["loop"] == loop])
    probes = {peer: seen for peer, seen in place.get("probes", {}).items() if seen}
    if probes:
        cases = [
            case
            for case in ("timeout", "held", "killed", "flight", "output")
            if any(case in s for s in probes.values())
        ]
        held = max(HELD, place["patience"])
        heads = {
            "timeout": f"timeout of {place['patience']:g} s",
            "held": f"held, timeout of {held:g} s",
            "flight": "memory, 16 in flight",
            "output": "memory, large output",
        }
        yield from _table(
            ["", *(heads.get(case, case) for case in cases)],
            (
                [peer, *(_probe(case, seen.get(case)) for case in cases)]
                for peer, seen in probes.items()
            ),
        )
    if place["missing"]:
        yield "Not measured:\n"
        yield "\n".join(f"- {peer}: {why}" for peer, why in place["missing"].items()) + "\n"


def _speed(place: Found, rows: list[Row]) -> Iterator[str]:
    cases = list(dict.fromkeys(row["case"] for row in rows))
    by_peer: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_peer.setdefault(row["peer"], {})[row["case"]] = row
    size = (place["settings"]["output"] or place["output"]) / _MIB
    heads = [
        f"MiB/s of {size:.0f} MiB"
        if case == "output"
        else f"{'ms' if _of_box(case) else 'calls/s'}, {_what(case)}"
        for case in cases
    ]
    table = []
    for peer, seen in by_peer.items():
        one = seen.get("1", {})
        latency = f"{one['p50'] * 1000:.1f}, {one['p99'] * 1000:.1f}" if "p50" in one else _NONE
        mark = _STDIN[place.get("stdin", {}).get(peer, "closed")]
        table.append(
            [
                peer + mark,
                latency,
                *(
                    _time(seen.get(case))
                    if _of_box(case)
                    else _rate(seen.get(case), size if case == "output" else 1)
                    for case in cases
                ),
            ]
        )
    yield from _table(["", "ms p50, p99", *heads], table)
    failed = [(row["peer"], row["case"], row["failed"]) for row in rows if "failed" in row]
    if failed:
        yield "\n".join(f"- {peer}, {_what(case)}: {why}" for peer, case, why in failed)
        yield ""


def _time(row: Row | None) -> str:
    return _rate(row, 1, lambda rate: 1000 / rate)


def _rate(
    row: Row | None, unit: float, figure: Callable[[float], float] = lambda rate: rate
) -> str:
    if row is None:
        return _NONE
    if "rounds" not in row:
        return "**failed**"
    rate = figure(statistics.median(row["rounds"]) * unit)
    shown = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
    if "ratio" not in row:
        return shown
    middle, least, most = row["ratio"]
    spread = (
        f" ({least:.2f} .. {most:.2f})"
        if len(row["rounds"]) > 1 and (least, most) != (1, 1)
        else ""
    )
    return f"{shown}, {middle:.2f}x{spread}"


def _probe(case: str, seen: Found | None) -> str:
    if seen is None:
        return _NONE
    if "missing" in seen:
        return f"not seen: {seen['missing']}"
    if "bytes" in seen:
        return f"{seen['bytes'] / _MIB:.0f} MiB"
    left = f"**{seen['left']} left**" if seen["left"] else "0 left"
    if case == "killed":
        return left
    said = " ".join(seen["outcome"].split())
    after = f" after {seen['seconds']:.1f} s" if "seconds" in seen else ""
    return f"{said}{after}, {left}"
