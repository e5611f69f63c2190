"""The event loops that tests run on."""

from __future__ import annotations

import zlib

import pytest

LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
"""The loops of most tests."""

EVERY_LOOP = [*LOOPS, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
"""The loops of the core's tests."""


def take_turns(metafunc, fixture=None, params=(None,)):
    """Run a test on one event loop, unless ``--both-loops`` asks for more.

    A command in a container takes the same course on each loop, and costs the machine much. The
    conformance kit runs every check in containers on both loops.

    Args:
        metafunc: The test.
        fixture: A fixture whose params take turns with the loops. Default: the tests do.
        params: Its params.
    """
    marked = {
        name
        for mark in metafunc.definition.iter_markers("parametrize")
        for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
    }
    if (
        metafunc.config.getoption("both_loops")
        or "anyio_backend" not in metafunc.fixturenames
        or "anyio_backend" in marked
    ):
        return
    if fixture not in metafunc.fixturenames:
        fixture, params = None, (None,)
    first = 0 if fixture else zlib.crc32(metafunc.definition.nodeid.encode())
    pairs = [(LOOPS[(first + number) % 2].values[0], param) for number, param in enumerate(params)]
    ids = ["-".join(filter(None, (loop[0], param))) for loop, param in pairs]
    names = ("anyio_backend", fixture) if fixture else ("anyio_backend",)
    values = [pair[: len(names)] for pair in pairs]
    metafunc.definition.add_marker(pytest.mark.parametrize(names, values, ids=ids, indirect=True))
