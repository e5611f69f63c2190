"""The conformance kit over a container: a supervisor for each command, and ones that stay."""

from __future__ import annotations

import pytest

from anyspawn import DockerExec, spawn
from anyspawn.testing import SandboxConformance
from engines import LABEL, docker, docker_works

pytestmark = pytest.mark.heavy
FOREVER = "while :; do sleep 1000; done"


@pytest.fixture(scope="module")
def container():
    if not docker_works():
        pytest.skip("no docker daemon answers")
    name = docker("run", "-d", "--label", LABEL, "busybox", "sh", "-c", FOREVER)
    yield name
    docker("rm", "-f", name)


class TestDockerExec(SandboxConformance):
    knows_signal = False
    contains = False

    @pytest.fixture
    def sandbox(self, container):
        return DockerExec(container, default_timeout=60, resident=0)


class TestDockerExecCalledAgain(SandboxConformance):
    knows_signal = False
    contains = False

    @pytest.fixture
    async def sandbox(self, container):
        async with DockerExec(container, default_timeout=60) as sandbox:
            await spawn(["true"], sandbox=sandbox, check=True)
            yield sandbox
