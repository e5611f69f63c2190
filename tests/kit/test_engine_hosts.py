"""A host process that is killed, stopped or signalled while its programs run in a container."""

from __future__ import annotations

import pytest

from befallen import BACKENDS, outlast_a_stop
from engines import LABEL, docker, docker_works, made_by_us, processes_in
from machine import eventually
from uses import ENGINES

pytestmark = pytest.mark.heavy
EVERYWHERE = [(mode, backend) for mode in ENGINES for backend in BACKENDS]


@pytest.fixture(scope="module")
def container():
    if not docker_works():
        pytest.skip("no docker daemon answers")
    name = docker(
        *("run", "-d", "--label", LABEL, "busybox", "sh", "-c", "while :; do sleep 1000; done")
    )
    yield name
    docker("rm", "-f", name)


@pytest.fixture(autouse=True)
def nothing_is_left_there(container, monkeypatch):
    monkeypatch.setenv("CONTAINER", container)
    yield
    assert not eventually(lambda: processes_in(container), 30)
    assert not eventually(made_by_us, 30)


def test_the_host_is_stopped_for_a_while():
    """A program that exited in time has not timed out, even if its host was stopped and learns of
    it late.
    """
    outlast_a_stop(EVERYWHERE)
