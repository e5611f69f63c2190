"""The event loops that tests run on."""

from __future__ import annotations

import itertools

import pytest

LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
"""The loops of most tests."""

EVERY_LOOP = [*LOOPS, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
"""The loops of the core's tests."""


def pair(metafunc, fixture, params):
    """Run tests of a fixture with params on one event loop with each, in turn.

    A call in a container takes the same course on each loop, and costs the machine much.
    """
    marked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if {fixture, "anyio_backend"} <= {*metafunc.fixturenames} and "anyio_backend" not in marked:
        pairs = [
            pytest.param(loop.values[0], param, id=f"{loop.id}-{param}")
            for param, loop in zip(params, itertools.cycle(LOOPS), strict=False)
        ]
        names = ("anyio_backend", fixture)
        metafunc.definition.add_marker(pytest.mark.parametrize(names, pairs, indirect=True))
