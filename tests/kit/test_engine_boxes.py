"""The conformance kit for boxes over containers and pods: those that anyspawn makes, and existing
ones.
"""

from __future__ import annotations

import pytest

from anyspawn import DockerExec, DockerRun, KubectlExec, KubectlRun
from anyspawn.testing import BoxConformance
from cluster import Space, cluster_works
from engines import LABEL, docker, docker_works, made_by_us
from loops import take_turns

pytestmark = pytest.mark.heavy
FOREVER = "while :; do sleep 1000; done"


def pytest_generate_tests(metafunc):
    take_turns(metafunc)


@pytest.fixture(scope="module")
def container():
    if not docker_works():
        pytest.skip("no docker daemon answers")
    name = docker("run", "-d", "--label", LABEL, "busybox", "sh", "-c", FOREVER)
    yield name
    docker("rm", "-f", name)


@pytest.fixture(scope="module")
def space():
    if not cluster_works():
        pytest.skip("KUBECONFIG names no cluster that answers")
    space = Space()
    yield space
    space.close()


@pytest.fixture(scope="module")
def pod(space):
    return space.start("busybox")


class TestDockerRun(BoxConformance):
    startup = 3.0

    @pytest.fixture
    def sandbox(self, container):
        return DockerRun("busybox", network="none", default_timeout=60)

    def remains(self):
        return [*super().remains(), *made_by_us()]


class TestDockerExec(BoxConformance):
    own = False

    @pytest.fixture
    async def sandbox(self, container):
        async with DockerExec(container, default_timeout=60) as sandbox:
            yield sandbox


class TestKubectlRun(BoxConformance):
    startup = 3.0

    @pytest.fixture
    def sandbox(self, space):
        self.space = space
        return KubectlRun("busybox", namespace=space.name, default_timeout=60)

    def remains(self):
        return [*super().remains(), *self.space.made_by_us()]


class TestKubectlExec(BoxConformance):
    own = False
    startup = 3.0

    @pytest.fixture
    async def sandbox(self, pod, space):
        async with KubectlExec(pod, namespace=space.name, default_timeout=60) as sandbox:
            yield sandbox
