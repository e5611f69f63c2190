"""A host process that is killed, stopped or signalled, in every mode without an engine. Direct and
Bubblewrap are on both event loops; the modes that build on them take turns with the loops.
"""

from __future__ import annotations

import itertools
import os
import shutil

import pytest

from befallen import BACKENDS, hosts, outlast_a_stop
from machine import bubblewrap_works, eventually, kill_all, processes_with, settled_below
from uses import LOCAL, left_by

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here"),
]
BOTH = ("direct", "bubblewrap")
OTHERS = [mode for mode in LOCAL if mode not in BOTH]
EVERYWHERE = [
    *itertools.product(BOTH, BACKENDS),
    *zip(OTHERS, itertools.cycle(BACKENDS), strict=False),
]
everywhere = pytest.mark.parametrize(("mode", "backend"), EVERYWHERE)


def as_another_user(number):
    """Run as a user who has no other process but can read everything that this one can."""
    return (
        "setpriv",
        f"--reuid={61000 + number}",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    )


def mounting(options):
    def within(number):
        return ("unshare", "--mount", "sh", "-c", f'mount {options} /proc; exec "$@"', "sh")

    return within


NO_PROC = mounting("-t tmpfs none")
OTHERS_PROC = ("unshare", "--pid", "--fork", "--kill-child")
HIDDEN = mounting("-t proc -o hidepid=invisible proc")
root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root")


@root
@pytest.mark.parametrize(
    "within",
    [
        pytest.param(NO_PROC, id="missing"),
        pytest.param(lambda number: OTHERS_PROC, id="of another namespace"),
        pytest.param(lambda number: (*HIDDEN(number), *as_another_user(number)), id="hidden"),
    ],
)
def test_proc(within):
    """If /proc does not show the processes, anyspawn must not claim that a living one is gone."""
    with hosts("use", "ended", within=within, where=EVERYWHERE) as started:
        for host in started:
            host.looks("ended")


@root
@pytest.mark.parametrize("limit", [1, 3])
def test_so_many_processes_may_be_started(limit):
    """With too few processes allowed, a call has a result or an error that says why."""
    what = ("use_with_few_processes", str(limit), "plain")
    with hosts(*what, within=as_another_user, where=EVERYWHERE) as started:
        for host in started:
            host.looks("plain")


def test_the_host_is_stopped_for_a_while():
    """A program that exited in time has not timed out, even if its host was stopped and learns of
    it late.
    """
    outlast_a_stop(EVERYWHERE)


@everywhere
def test_the_host_is_killed(mode, backend):
    """When the host is killed, its programs end too. Direct has nothing beside the host that could
    kill them, so they survive there.
    """
    with hosts("stay", where=[(mode, backend)]) as (host,):
        host.hears("ready", "ready")
        settled_below(host.pid)
        host.kill()
        host.wait()
        if mode == "direct":
            assert left_by(host.mark)
            kill_all(left_by(host.mark))
        assert not eventually(lambda: processes_with(host.mark), 30)


@everywhere
def test_an_interrupt_at_moments_of_a_call(mode, backend):
    """Ctrl-C at any moment raises KeyboardInterrupt unchanged, and leaves nothing behind."""
    with hosts("interrupted", where=[(mode, backend)]) as (host,):
        host.hears("over")
