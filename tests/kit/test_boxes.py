"""The conformance kit for boxes over the sandboxes that need no engine, and over boxes that lie."""

from __future__ import annotations

import os
import tempfile
from contextlib import asynccontextmanager
from inspect import signature

import attrs
import pytest
from attrs import field, frozen

from anyspawn import Box, Bubblewrap, Cleanup, Direct, open_box
from anyspawn._box import files, places
from anyspawn.testing import BoxConformance
from machine import bubblewrap_works, kill_all

needs_bwrap = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")


class TestDirect(BoxConformance):
    confines = False

    @pytest.fixture
    def sandbox(self):
        return Direct(default_timeout=60)


@needs_bwrap
class TestBubblewrap(BoxConformance):
    @pytest.fixture
    def sandbox(self):
        return Bubblewrap(default_timeout=60)


@frozen(kw_only=True)
class Labelled(Bubblewrap):
    """Gives every program one more variable, through an overridden `place`."""

    label: str = field()

    @asynccontextmanager
    async def place(self, command, deadline):
        command = attrs.evolve(command, env={**command.env.known(), "LABEL": self.label})
        async with Bubblewrap.place(self, command, deadline) as launch:
            yield launch


@needs_bwrap
@pytest.mark.anyio
async def test_a_class_derived_from_bubblewrap():
    """A box in a derived class works like one in Bubblewrap, and keeps the additions of
    the class.
    """
    async with open_box(Labelled(label="x y")) as box:
        done = await box.spawn(["sh", "-c", 'echo "$LABEL"'], check=True)
        assert done.text == "x y\n"


def telling(**lie):
    """Return a `Box.spawn` that falsifies its outcomes."""
    real = Box.spawn

    async def spawn(box, argv, **fields):
        return attrs.evolve(await real(box, argv, **fields), **lie)

    return spawn


async def nothing(*_, **__):
    return []


NOT_WHOLE = 'mkdir -p "${1%/*}"; dd bs=1000 count=1 of="$1"; sleep 0.05; cat >>"$1"'
LIES = {
    "test_files": (files, "WRITE", 'mkdir -p "${1%/*}"; head -c 100 >"$1"'),
    "test_what_goes_wrong_with_files": (files, "raise_for", lambda done, path: None),
    "test_a_file_is_whole": (files, "WRITE", NOT_WHOLE),
    "test_trees": (files, "pack", lambda source, into: None),
    "test_no_path_leads_out": (
        Box,
        "_path",
        lambda box, path, **_: os.path.join(box.workdir, path or "."),
    ),
    "test_calls": (Box, "spawn", telling(returncode=1)),
    "test_what_calls_share": (Box, "list_dir", nothing),
    "test_live_programs": (Box, "list_dir", nothing),
    "test_calls_that_are_killed": (Box, "spawn", telling(cleanup=Cleanup.UNCONFIRMED)),
    "test_what_calls_leave_running": (Box, "spawn", telling(cleanup=Cleanup.NOT_NEEDED)),
    "test_a_box_that_is_cancelled": (places, "_remove", nothing),
}


@pytest.mark.anyio
@pytest.mark.parametrize("check", LIES)
async def test_a_box_that_lies(check, monkeypatch, tmp_path):
    """Each false box fails the check named beside it."""
    kit = TestDirect()
    kit.mark, kit.kept, kit.folder = "1234567893", "123456789", tmp_path
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    args = [tmp_path] if "tmp_path" in signature(getattr(kit, check)).parameters else []
    monkeypatch.setattr(*LIES[check])
    with pytest.raises((Exception, pytest.fail.Exception)):
        await getattr(kit, check)(Direct(), *args)
    kill_all([*kit.survivors(kit.mark), *kit.survivors(kit.kept)])
