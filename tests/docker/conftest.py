"""A real docker daemon, containers to work in, and a check for containers that a test
left behind.
"""

from __future__ import annotations

import subprocess
import uuid

import pytest

from anyspawn._spawn import resident
from anyspawn.supervisor.encode import call_line
from engines import LABEL, docker, docker_works, made_by_us
from loops import take_turns
from machine import eventually


@pytest.fixture(scope="session", autouse=True)
def daemon():
    if not docker_works():
        pytest.skip("no docker daemon answers")
    for image in ("busybox", "python:3-slim", "distroless"):
        if not docker("images", "-q", image):
            pytest.skip(f"the image {image} is not here")


@pytest.fixture(autouse=True)
def no_container_is_left(daemon, nothing_is_left):
    """After each test, no container that it made may exist."""
    before = set(made_by_us())
    yield
    left = eventually(lambda: set(made_by_us()) - before, 30)
    if left:
        docker("rm", "-f", *left)
    assert not left, "containers outlived the test"


@pytest.fixture(scope="session")
def containers(daemon):
    """Return a function that starts a container for tests to work in."""
    names = []

    def start(image, *args, cmd=("sh", "-c", "while :; do sleep 1000; done")):
        name = f"anyspawn-test-{uuid.uuid4().hex[:12]}"
        names.append(name)
        docker("run", "-d", "--name", name, "--label", LABEL, *args, image, *cmd)
        return name

    yield start
    docker("rm", "-f", *names, check=False)


@pytest.fixture(scope="session")
def busybox(containers):
    return containers("busybox")


@pytest.fixture(scope="session")
def python(containers):
    return containers("python:3-slim")


class Box(str):
    """A container's name, and the number of residents that its sandbox has."""

    __slots__ = ("resident",)


BOXES = [
    "busybox",
    "python",
    "python with residents",
    "busybox with residents",
    "python with residents that know",
]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    own = hasattr(metafunc.module, "box")
    take_turns(metafunc, *(() if own else ("box", BOXES)))


@pytest.fixture(params=BOXES)
def box(request, monkeypatch):
    """A container with busybox's sh or with dash; with a new supervisor for each command or with
    residents. Those "that know" treat every program as one that they have executed before.
    """
    image, _, residents = request.param.partition(" ")
    box = Box(request.getfixturevalue(image))
    box.resident = 8 if residents else 0
    if residents.endswith("know"):

        def told(*args, **fields):
            return call_line(*args[:2], "yes", **fields)

        monkeypatch.setattr(resident, "call_line", told)
    return box


@pytest.fixture
def fake_docker(tmp_path):
    """Return a function that makes a docker client from a script; "$real" is the real client."""

    def make(script):
        file = tmp_path / "docker"
        real = subprocess.run(
            ["sh", "-c", "command -v docker"], capture_output=True, text=True, check=True
        ).stdout.strip()
        file.write_text(f"#!/bin/sh\nreal={real}\n{script}\n")
        file.chmod(0o755)
        return str(file)

    return make
