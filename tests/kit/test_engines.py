"""The conformance kit over containers and pods, without and with residents."""

from __future__ import annotations

import pytest

from anyspawn import DockerExec, KubectlExec, spawn
from anyspawn.testing import SandboxConformance
from cluster import Space, cluster_works
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


@pytest.fixture(scope="module")
def pod():
    """A pod and its namespace."""
    if not cluster_works():
        pytest.skip("KUBECONFIG names no cluster that answers")
    space = Space()
    yield space.start("busybox"), space.name
    space.close()


class TestDockerExec(SandboxConformance):
    knows_signal = False
    contains = False
    startup = 3.0

    @pytest.fixture
    def sandbox(self, container):
        return DockerExec(container, default_timeout=60, resident=0)


class TestDockerExecCalledAgain(SandboxConformance):
    knows_signal = False
    contains = False
    startup = 3.0

    @pytest.fixture
    async def sandbox(self, container):
        async with DockerExec(container, default_timeout=60) as sandbox:
            await spawn(["true"], sandbox=sandbox, check=True)
            yield sandbox


class TestKubectlExec(SandboxConformance):
    knows_signal = False
    contains = False
    startup = 3.0

    @pytest.fixture
    def sandbox(self, pod):
        name, namespace = pod
        return KubectlExec(name, namespace=namespace, default_timeout=60, resident=0)
