"""A box and its file methods while few descriptors are free."""

from __future__ import annotations

import errno

import pytest

import anyspawn
from anyspawn import Bubblewrap, Direct, NotStartedError, SpawnError, TransportError
from faults import FullTable
from machine import bubblewrap_works

pytestmark = pytest.mark.anyio
SPACES = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
DATA = bytes(range(256)) * 400


@pytest.fixture(params=["direct", pytest.param("bubblewrap", marks=SPACES)])
def sandbox(request):
    return {"direct": Direct, "bubblewrap": Bubblewrap}[request.param](default_timeout=20)


def is_told(error):
    """Check that the error blames the host's descriptor table, and nothing in the box."""
    if isinstance(error, SpawnError):
        assert isinstance(error, (NotStartedError, TransportError)), error
        assert error.kind in ("resources", "other", "runner", "connection"), error
    else:
        assert error.errno == errno.EMFILE, error


async def test_a_box_is_opened(sandbox):
    """The box opens, or an error says why; nothing is left behind."""
    failed = 0
    for free in range(0, 24, 2):
        with FullTable(free):
            try:
                async with anyspawn.open_box(sandbox) as box:
                    await box.spawn(["true"], check=True)
            except (SpawnError, OSError) as exc:
                is_told(exc)
                failed += 1
    assert failed


async def test_a_box_that_is_open(sandbox, tmp_path):
    """Each file method works, or its error says why. The file in the box stays intact, and later
    calls succeed.
    """
    async with anyspawn.open_box(sandbox) as box:
        await box.write_file("old", DATA)
        failed = 0  # a resident may need no descriptor for a file call
        for call in (
            lambda: box.write_file("old", DATA),
            lambda: box.read_file("old"),
            lambda: box.download("old", tmp_path / "out"),
            lambda: box.save(tmp_path / "saved"),
        ):
            for free in range(0, 12, 2):
                with FullTable(free):
                    try:
                        await call()
                    except (SpawnError, OSError) as exc:
                        is_told(exc)
                        failed += 1
            assert await box.read_file("old") == DATA
            assert await box.list_dir() == ["old"]
        assert failed
