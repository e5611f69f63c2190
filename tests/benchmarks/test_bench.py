"""The benchmarks run and report without an engine and without other libraries."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import xml.etree.ElementTree as ET

import anyio
import attrs
import pytest
from benchmarks.cases import Cell, in_flight, rested, small
from benchmarks.measure import QUICK, TINY, measure
from benchmarks.peer import Peer, Place, Target, peer, sandboxed
from benchmarks.places import PLACES
from benchmarks.run import run_place

from anyspawn import Direct
from benchmarks import __main__ as command
from benchmarks import boxes, local, machine, plots, report, targets
from machine import eventually

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are counted in /proc"
)


def place(*peers, **options):
    return Place(
        name="local", title="Here", start=local.here, clean=local.nothing, peers=peers, **options
    )


async def wrong(argv, stdin, timeout):
    return b""


async def test_every_peer_of_a_round_is_measured_or_named(anyio_backend):
    """Each peer that works has its rows. A peer that is not installed, or lacks a field, is listed
    with the reason.
    """

    @contextlib.asynccontextmanager
    async def connect(_):
        import no_such_library  # noqa: F401

        yield wrong

    here = place(
        sandboxed("anyspawn Direct", Direct, lambda _: {}),
        sandboxed("anyspawn later", Direct, lambda _: {"no_such_field": 8}),
        Peer(name="absent", connect=connect),
        Peer(name="thread", connect=local.thread),
        peer("elsewhere", wrong, loops=()),
    )
    found = await measure(here, "asyncio", Target(run="r"), TINY)
    assert {row["peer"] for row in found["rows"]} == {"anyspawn Direct", "thread"}
    assert {row["case"] for row in found["rows"]} == {"1", "4", "output"}
    assert all(row["rounds"][0] > 0 and row["p99"] >= row["p50"] > 0 for row in found["rows"])
    assert found["missing"]["absent"] == "not installed (no module no_such_library)"
    assert (
        found["missing"]["anyspawn later"]
        == "this version of anyspawn does not have `no_such_field`"
    )


async def test_calls_apart_and_in_a_burst(anyio_backend):
    """The time of a call does not include the pause before it."""

    async def call(argv, stdin, timeout):
        return b"x" * 1024

    program = small(Peer(name="x", connect=None))
    cell = await rested(call, program, 3, 1, 0.01)
    assert len(cell.took) == 3
    assert cell.seconds == sum(cell.took)
    cell = await rested(call, program, 1, 3, 1.0)
    assert len(cell.took) == 3
    assert sum(cell.took) <= cell.seconds < 1.0


async def test_boxes_are_measured(anyio_backend):
    """Calls, writes, reads and the life of a box are measured. A box that loses data has failed."""

    async def empty(name):
        return b""

    @contextlib.asynccontextmanager
    async def forgets(target):
        async with boxes.boxed("x", lambda _: Direct()).connect(target) as box:
            box.read = empty
            yield box

    here = place(
        boxes.boxed("anyspawn Direct", lambda _: Direct()),
        Peer(name="forgets", connect=forgets),
        widths=(1,),
        files=(10, 2**21),
        output=0,
    )
    found = await measure(here, "asyncio", Target(run="r"), TINY)
    rows = {(row["peer"], row["case"]): row for row in found["rows"]}
    names = ["1", "write 10", "read 10", f"write {2**21}", f"read {2**21}", "life"]
    assert [case for peer, case in rows if peer == "anyspawn Direct"] == names
    assert all(row["p50"] > 0 for (_, case), row in rows.items() if not case.startswith("read"))
    assert rows["forgets", "read 10"]["failed"].endswith("0 bytes came back instead of 10")


async def test_lost_output_fails_the_case(anyio_backend):
    """A peer whose output is wrong has failed, however fast it was."""
    cell = await in_flight(wrong, small(peer("wrong", wrong)), width=2, seconds=0.0)
    assert cell.failed == "WrongOutputError: 0 bytes came back instead of 1024"


def test_what_a_stubborn_program_leaves_is_counted():
    """After a timeout anyspawn leaves nothing. Killing only the direct child leaves processes,
    which are counted and killed.
    """
    found = run_place(
        attrs.evolve(PLACES["local"], loops=("asyncio",), patience=0.5, peers=LITTLE), PROBE, "r"
    )
    assert found["probes"]["anyspawn Direct"]["timeout"]["left"] == 0
    assert found["probes"]["anyspawn Direct"]["timeout"]["outcome"] == "SpawnTimeoutError"
    assert found["probes"]["anyio.run_process"]["timeout"]["left"] == 3
    assert found["probes"]["anyspawn Direct"]["flight"]["bytes"] > 2**20


LITTLE = tuple(
    one for one in local.LOCAL.peers if one.name in {"anyspawn Direct", "anyio.run_process"}
)
PROBE = attrs.evolve(TINY, probes=("timeout", "flight"), widths=(1,), output=2**16)


def test_every_place_can_be_named_and_measured_from_the_command_line(tmp_path, monkeypatch):
    """Each place's first peer is not anyspawn, names are unique, and a place that is not available
    still gives a page.
    """
    for name, one in PLACES.items():
        names = [each.name for each in one.peers]
        assert name == one.name
        assert len(set(names)) == len(names)
        assert not names[0].startswith("anyspawn")
        assert any(each.startswith("anyspawn") for each in names)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    command.main(["--quick", "--only", "docker_exec", "kubectl_exec", "--out", str(tmp_path)])
    page = (tmp_path / "benchmarks.md").read_text()
    assert "In a running container: docker does not work here" in page
    assert "In a running pod: KUBECONFIG names no cluster" in page
    command.main(["--render", "--out", str(tmp_path)])
    assert (tmp_path / "benchmarks.md").read_text() == page


def test_aims_name_what_is_measured():
    """Each aim refers to an existing peer and case."""
    for aim in targets.AIMS:
        where = PLACES[aim.place]
        assert aim.peer in {each.name for each in where.peers}
        assert aim.loop in where.loops
        assert (
            aim.case == "output"
            or (aim.case in ("apart", "burst") and where.rest)
            or int(aim.case) in where.widths
        )
    assert targets.Aim("local", "x", "1", "ms", 4).met(3.9)
    assert not targets.Aim("local", "x", "1", "ratio", 4).met(3.9)


def row(name, rounds, case="1", **more):
    base = {
        "peer": name,
        "case": case,
        "loop": "asyncio",
        "rounds": rounds,
        "p50": 0.001,
        "p99": 0.002,
    }
    return base | {"ratio": [1.0, 1.0, 1.0]} | more


FOUND = {
    "about": machine.about() | {"versions": {"anyspawn": "1"}},
    "settings": json.loads(json.dumps(attrs.asdict(QUICK))),
    "minutes": 1.0,
    "import": {"ms": 10.0, "least": 9.0, "most": 11.0},
    "places": {
        "local": {
            "title": "On this host",
            "patience": 2.0,
            "output": 2**30,
            "settings": {"output": 2**20},
            "stdin": {"quick": "none"},
            "rows": [
                row("quick", [300.0, 200.0, 100.0]),
                row("anyspawn Direct", [100.0, 100.0, 100.0], ratio=[0.5, 0.33, 1.0]),
                {
                    "peer": "quick",
                    "case": "output",
                    "loop": "asyncio",
                    "failed": "WrongOutputError: 3 | 4",
                },
            ],
            "missing": {"absent": "not installed"},
            "probes": {
                "quick": {
                    "timeout": {"outcome": "did not return", "left": 3},
                    "killed": {"left": 1},
                },
                "anyspawn Direct": {
                    "timeout": {"outcome": "SpawnTimeoutError", "seconds": 2.0, "left": 0}
                },
            },
        }
    },
}


def test_losses_and_failures_are_on_the_page():
    """Peers that are faster than anyspawn are listed with the median ratio of the rounds; failures,
    missing peers and survivors are listed too.
    """
    page = report.render(FOUND)
    assert "| On this host | anyspawn Direct | asyncio | 1 | quick (2.00x) |" in page
    assert "| quick ² | 1.0, 2.0 | 200, 1.00x | **failed** |" in page
    assert "- quick, large output: WrongOutputError: 3 | 4" in page
    assert "- absent: not installed" in page
    assert "did not return, **3 left**" in page
    assert "SpawnTimeoutError after 2.0 s, 0 left" in page
    assert (
        "anyspawn Direct, 1 in flight, asyncio: at least 0.952 times the first peer's calls/s | 0.5 | **missed** |"
        in page
    )
    assert "at most 15 ms | 10.0 | met |" in page


def test_boxes_on_the_page():
    """For boxes the page shows times, where lower is better, and no plot."""
    cases = ("1", "write 1024", "read 67108864", "life")
    rows = [row("slow", [2.0], case) for case in cases]
    rows += [row("anyspawn Direct", [4.0], case, ratio=[2.0, 2.0, 2.0]) for case in cases]
    rows[0]["rounds"] = [8.0]
    found = FOUND["places"]["local"] | {"files": [1024, 2**26], "rows": rows}
    found = FOUND | {"places": {"box": found}}
    page = report.render(found)
    assert (
        "| calls/s, 1 in flight | ms, write 1 KiB | ms, read 64 MiB | ms, start and end |" in page
    )
    assert (
        "| anyspawn Direct | 1.0, 2.0 | 4, 2.00x | 250, 2.00x | 250, 2.00x | 250, 2.00x |" in page
    )
    assert "| anyspawn Direct | asyncio | 1 | slow (2.00x) |" in page
    assert report.render_plots(found) == {}
    assert ".svg" not in page


def test_the_page_begins_with_plots_and_what_is_left():
    """The page shows plots, leftovers, where anyspawn is slower, the rest, and the method, in this
    order.
    """
    page = report.render(FOUND)
    order = [
        "![On this host: calls/s",
        "## What each leaves behind",
        "## Where anyspawn is slower",
        "## Aims",
        "## On this host",
        "## How it is measured",
    ]
    assert sorted(order, key=page.index) == order
    assert "**3**, did not return" in page


def test_a_whole_run_is_written(tmp_path, monkeypatch):
    """The command writes the page, the figures and the plots, and the figures are the measured
    ones.
    """
    monkeypatch.setattr(command, "measure", lambda names, settings: FOUND)
    command.main(["--only", "local", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "benchmarks" / "results.json").read_text()) == FOUND
    assert "(benchmarks/local.svg)" in (tmp_path / "benchmarks.md").read_text()
    assert ET.fromstring((tmp_path / "benchmarks" / "local.svg").read_text()).tag.endswith("svg")


def test_a_place_that_is_measured_again(tmp_path, monkeypatch):
    """It replaces the figures of the last run, and the page says so; the others stay."""
    monkeypatch.setattr(command, "measure", lambda names, settings: FOUND)
    command.main(["--out", str(tmp_path)])
    name, place = next(iter(FOUND["places"].items()))
    again = FOUND | {"places": {name: place | {"title": "Again"}}}
    monkeypatch.setattr(command, "measure", lambda names, settings: again)
    command.main(["--only", name, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "benchmarks" / "results.json").read_text())
    assert found["places"].keys() == FOUND["places"].keys()
    assert found["places"][name]["title"] == "Again"
    day = FOUND["about"]["day"]
    assert f"Measured by itself, on {day}." in (tmp_path / "benchmarks.md").read_text()


@pytest.mark.parametrize(
    "svg",
    [
        plots.lines(
            "a < b & c", "x", "y", {"anyspawn": [(1, 0.05), (64, 5000)], "other": [(1, 3)]}
        ),
        plots.lines("same", "x", "y", {"one": [(1, 5.0)]}),
        plots.lines("none", "x", "y", {}),
        plots.panels("t", "x", {"fds": {"asyncio": [(0, 0), (9, 0)], "trio": [(9, 4)]}, "rss": {}}),
    ],
)
def test_plots_are_well_formed(svg):
    """Titles are escaped, every coordinate is finite, and the drawing stays inside its box."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert math.isfinite(x + y)
            assert 0 <= x <= width
            assert 0 <= y <= height


async def test_memory_of_children_is_part_of_the_peak(anyio_backend):
    """Memory is counted over the whole process tree: a child's 50 MiB are included."""
    with machine.Peak() as peak:
        code = "import sys; held = b'x' * 50 * 2**20; print(flush=True); sys.stdin.read()"
        async with await anyio.open_process([sys.executable, "-c", code]) as child:
            await child.stdout.receive()
            assert not eventually(lambda: peak.bytes <= machine.rss() + 50 * 2**20)


def test_a_cell_knows_its_rate():
    """The rate is the calls divided by the time of the whole cell, not the inverse of one call's
    time.
    """
    assert Cell(took=[1.0, 1.0], seconds=1.0).rate == 2.0
