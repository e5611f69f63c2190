"""The soak test runs, and detects growth."""

from __future__ import annotations

import random
import sys

import anyio
import pytest
from benchmarks.mixture import KINDS, WAYS, perform
from benchmarks.peer import Target
from benchmarks.places import PLACES

from anyspawn import Direct
from benchmarks import soak, soak_hooks, soak_report

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are counted in /proc"
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_each_kind_ends_as_the_mixture_says(anyio_backend, kind):
    """Every kind of call has the outcome that the soak test expects."""
    rng = random.Random(1)
    rng.uniform = lambda low, high: high
    with anyio.fail_after(30):
        assert await perform(kind, Direct(), 1_234_567, rng) in kind.ends


def test_ways_name_places_that_there_are():
    """Each sandbox of the mixture gets its target from a place of the benchmarks."""
    assert {way.place for way in WAYS} <= PLACES.keys()


@pytest.fixture
def local_alone(monkeypatch):
    """Use only Direct, so that the test needs neither an engine nor bwrap."""
    monkeypatch.setattr(soak, "WAYS", tuple(way for way in WAYS if way.name == "Direct"))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_short_soak_is_flat(local_alone, loop):
    """Forty calls of all kinds leave nothing, and resources are counted between batches."""
    plan = soak.Plan(
        loop=loop,
        calls=40,
        seed=1,
        sleep=random.randrange(10**6, 10**7),
        targets={"local": Target(run="r")},
    )
    found = soak.run_loop(plan)
    assert found["problems"] == []
    assert sum(found["calls"].values()) == 40
    assert [sample["calls"] for sample in found["samples"]] == list(range(1, 41))
    about = {"day": "today", "cores": 2, "python": "3"}
    page = soak_report.render(
        {
            "about": about,
            "calls": 40,
            "seed": 1,
            "minutes": 0.1,
            "missing": {"pods": "none"},
            "loops": {loop: found},
        }
    )
    assert "Nothing grew and nothing was left." in page
    assert "- pods: none" in page
    assert "<svg" in soak_report.plot({"calls": 40, "loops": {loop: found}})


def sample(**more):
    names = dict.fromkeys(soak_report.LABELS, 3.0)
    return {"calls": 1, **names, **more}


@pytest.mark.parametrize(
    ("samples", "final", "wrong", "said"),
    [
        ([sample()] * 8, sample(), {}, []),
        (
            [sample()] * 6 + [sample(fds=8.0), sample(fds=9.0)],
            sample(),
            {},
            ["descriptors: from at most 3 in the first half to at least 8 in the last quarter"],
        ),
        ([sample(), sample(fds=9.0)] + [sample()] * 5 + [sample(fds=9.0)], sample(), {}, []),
        (
            [sample()] * 8,
            sample(containers=4.0),
            {},
            ["containers: 4 after everything was closed, 3 before"],
        ),
        ([sample()] * 6 + [sample(rss_mib=8.0)] * 2, sample(), {}, ["memory, MiB: from 3 to 8"]),
        (
            [sample()] * 8,
            sample(),
            {"Direct: cat: ExitError": 2},
            ["Direct: cat: ExitError: 2 calls"],
        ),
    ],
)
def test_what_grew_or_was_left_is_told(samples, final, wrong, said):
    """A higher count at the end, more memory, leftovers after closing and a wrong outcome are all
    problems.
    """
    seen = soak.Seen(samples=samples, final=final, wrong=wrong)
    assert soak.judge(seen, sample()) == said


def test_a_problem_is_the_exit_status(monkeypatch, tmp_path):
    """The command exits with 1 if there was a problem, and the page describes it."""
    found = {
        "about": {"day": "today", "cores": 2, "python": "3"},
        "calls": 1,
        "seed": 1,
        "minutes": 0.1,
        "missing": {},
    }
    found["loops"] = {"asyncio": {"problems": ["children: grew"]}}
    monkeypatch.setattr(soak, "run_all", lambda *_: found)
    assert soak.main(["--out", str(tmp_path)]) == 1
    assert "- asyncio: children: grew" in (tmp_path / "soak.md").read_text()
    found["loops"]["asyncio"]["problems"] = []
    assert soak.main(["--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_short_soak_of_hooks(loop):
    """In ten turns with all kinds of hooks, a hook that must not allow is never overruled, and each
    turn gets its decision in time.
    """
    found, problems = soak_hooks.run(loop, 0, 1, turns=10)
    assert not found.seen.wrong
    assert found.seen.calls.total() == 10
    assert problems == []


def test_a_soak_of_hooks_sees_what_is_overruled(monkeypatch):
    """The soak test detects a hook that allows although it is declared as one that cannot."""
    made = soak_hooks.guards

    def wrong(sleep):
        return [soak_hooks.Guard(guard.hook, allows=False) for guard in made(sleep)[:1]]

    monkeypatch.setattr(soak_hooks, "guards", wrong)
    _, problems = soak_hooks.run("asyncio", 0, 1, turns=2)
    assert problems[0] == "allowed, though allows cannot have: 2 calls"
