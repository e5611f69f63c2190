"""Every fault that a host process can be given, in every mode that needs no engine."""

from __future__ import annotations

import itertools
import os
import tempfile

import pytest

from anyspawn import Cleanup
from faults import FAULTS, FullTable
from loops import LOOPS
from machine import MARK, bubblewrap_works
from uses import LOCAL, USES, look, use_once

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.heavy,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]


@pytest.fixture(autouse=True)
def shared_mark(nothing_is_left, monkeypatch):
    """Put the mark under a second name, which supervisors pass on."""
    monkeypatch.setenv("FAULTS_MARK", os.environ[MARK])


BOTH = ("direct", "bubblewrap")
IN_TURN = zip((mode for mode in LOCAL if mode not in BOTH), itertools.cycle(LOOPS), strict=False)
MODES = pytest.mark.parametrize(
    ("mode", "anyio_backend"),
    [
        pytest.param(mode, loop.values[0], id=f"{loop.id}-{mode}")
        for mode, loop in (*itertools.product(BOTH, LOOPS), *IN_TURN)
    ],
    indirect=["anyio_backend"],
)
"""Direct and Bubblewrap on both event loops; the modes that build on them take turns with those."""


@MODES
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault(fault, mode, monkeypatch, tmp_path):
    """On a host without newer system calls, every promise still holds."""
    FAULTS[fault](monkeypatch, tmp_path)
    for use in USES:
        done = await use_once(LOCAL[mode](), use)
        look(done, os.environ[MARK])
        if use in ("plain", "live"):
            assert done.error is None, (use, done)
        elif use == "exit_status":
            assert done.returncode == 3, done
        else:  # without pidfds, a process outside the group is seen, but cannot be signalled safely
            unseen = mode == "direct" and "pidfd" in fault
            assert done.cleanup is Cleanup.CONFIRMED or unseen, (use, done)


@MODES
@pytest.mark.parametrize("use", ["plain", "live"])
async def test_so_many_descriptors_are_free(mode, use, monkeypatch, tmp_path):
    """From 0 free descriptors on, a call has a result or an error that says why; nothing leaks."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcomes = []
    for free in range(16):
        sandbox = LOCAL[mode]()
        with FullTable(free):
            outcomes.append(await use_once(sandbox, use))
        look(outcomes[-1], os.environ[MARK])
        assert not list(tmp_path.glob("anyspawn-box-*")), free
    assert outcomes[0].error is not None
