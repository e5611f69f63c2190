"""A real cluster with a namespace and pods for the tests, and a check for pods that a test left
behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster import Space, clients, cluster_works
from loops import take_turns
from machine import eventually


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    if not hasattr(metafunc.module, "pytest_generate_tests"):
        take_turns(metafunc)


@pytest.fixture(scope="session", autouse=True)
def cluster():
    if not cluster_works():
        pytest.skip("KUBECONFIG names no cluster that answers")


@pytest.fixture(scope="session")
def space(cluster):
    space = Space()
    yield space
    space.close()


@pytest.fixture(autouse=True)
def no_pod_is_left(space, nothing_is_left):
    """After each test, no pod that it made may exist."""
    yield
    left = eventually(space.made_by_us, 30)
    if left:
        space.end(*left)
    assert not left, "pods outlived the test"


@pytest.fixture(scope="session")
def busybox(space):
    return space.start("busybox")


@pytest.fixture(scope="session")
def python(space):
    return space.start("python:3-slim")


@pytest.fixture
def own(space):
    """A pod that the test may break."""
    name = space.start()
    yield name
    space.end(name)


@pytest.fixture(params=clients(), ids=lambda path: Path(path).name)
def client(request):
    return request.param


@pytest.fixture
def fake_kubectl(tmp_path):
    """Return a function that makes a kubectl from a script; "$real" is the real kubectl."""

    def make(script):
        file = tmp_path / "kubectl"
        file.write_text(f"#!/bin/sh\nreal={shutil.which('kubectl')}\n{script}\n")
        file.chmod(0o755)
        return str(file)

    return make
