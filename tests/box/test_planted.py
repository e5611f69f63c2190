"""When a box ends, anyspawn reports files that it left in a writable folder and that the host would
run.
"""

from __future__ import annotations

import logging

import pytest

import anyspawn
from anyspawn import Bubblewrap, PlantedError
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]

WORDS = "the box has ended; new in a writable folder, and run by the host later: .*bashrc"
PLANT = ["sh", "-c", "echo x >.bashrc"]


def sandbox(folder):
    return Bubblewrap(writable=[folder], workdir=folder)


async def left_by(plant, folder):
    async with anyspawn.open_box(sandbox(folder)) as box:
        await plant(box)


@pytest.mark.parametrize(
    "plant",
    [
        lambda box: box.spawn(PLANT, check=True),
        lambda box: box.write_file(".bashrc", b"x"),
        lambda box: box.spawn(["sh", "-c", "echo x >.bashrc; kill -9 -1"]),
    ],
    ids=["a call", "a file", "a call that ends the box"],
)
async def test_it_is_raised_when_the_block_is_left(plant, tmp_path):
    """The error is raised even if the program killed everything in the box, and the box is gone."""
    with pytest.raises(PlantedError, match=WORDS) as caught:
        await left_by(plant, tmp_path)
    assert caught.value.paths == (str(tmp_path / ".bashrc"),)
    assert (tmp_path / ".bashrc").read_text().strip() == "x"


async def test_beside_another_error(tmp_path, caplog):
    """The other exception is raised with a note; the log has the warning in any case."""
    with pytest.raises(anyspawn.ExitError) as caught:
        async with anyspawn.open_box(sandbox(tmp_path)) as box:
            await box.spawn(["sh", "-c", "echo x >.bashrc; exit 3"], check=True)
    (note,) = caught.value.__notes__
    assert str(tmp_path / ".bashrc") in note
    (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert str(tmp_path / ".bashrc") in record.getMessage()


async def test_without_a_block(tmp_path):
    """The first aclose raises the error; the second does nothing."""
    box = await anyspawn.start_box(sandbox(tmp_path))
    await box.spawn(PLANT, check=True)
    with pytest.raises(PlantedError, match=WORDS):
        await box.aclose()
    await box.aclose()


async def test_what_was_there_or_is_allowed_is_not_told(tmp_path):
    (tmp_path / ".profile").write_text("x")
    allowed = Bubblewrap(writable=[tmp_path, tmp_path / ".bashrc"], workdir=tmp_path)
    (tmp_path / ".bashrc").write_text("")
    async with anyspawn.open_box(allowed) as box:
        await box.spawn(PLANT, check=True)
        await box.write_file("x", b"")
