"""A box that cannot be attached to is refused before anything starts. The tests of containers and
pods have more.
"""

from __future__ import annotations

import pytest

import anyspawn
from anyspawn import ConfigError, Direct, DockerExec, DockerRun

pytestmark = pytest.mark.anyio

OWN = "docker_run:anyspawn-" + 32 * "0"


@pytest.mark.parametrize(
    ("box_id", "sandbox", "ends", "error", "words"),
    [
        ("direct:0123", None, False, ConfigError, "one of docker_run, docker_exec, kubectl_run"),
        ("bubblewrap:0123", None, False, ConfigError, "its opener's alone"),
        ("", None, False, ConfigError, "hand on Box.id"),
        ("a-container", None, False, ConfigError, "hand on Box.id"),
        ("docker_exec:", None, False, ConfigError, "hand on Box.id"),
        ("docker_exec:x?docker_path=/tmp/x", None, False, ConfigError, "hand on Box.id"),
        ("docker_exec:x?workdir", None, False, ConfigError, "hand on Box.id"),
        ("docker_exec:x?workdir=relative", None, False, ConfigError, "hand on Box.id"),
        ("docker_exec:--privileged", None, False, ConfigError, "container must not start"),
        ("docker_run:postgres", None, True, ConfigError, "hand on Box.id"),
        ("docker_exec:x", None, True, ConfigError, "leave ends out"),
        (OWN, Direct(), False, ConfigError, "give that, or leave it out, not a Direct"),
        (OWN, DockerExec("x"), False, ConfigError, "opened with a DockerRun"),
        ("kubectl_exec:x", DockerRun("x"), False, ConfigError, "opened with a KubectlExec"),
        (b"docker_exec:x", None, False, TypeError, "must be a str, not bytes"),
    ],
)
async def test_what_is_no_box_to_attach_to(box_id, sandbox, ends, error, words):
    with pytest.raises(error, match=words):
        async with anyspawn.attach_box(box_id, sandbox, ends=ends):
            raise AssertionError


async def test_a_box_of_this_host_is_its_openers():
    async with anyspawn.open_box() as box:
        assert box.id.startswith("direct:")
        with pytest.raises(ConfigError, match="opener's alone"):
            async with anyspawn.attach_box(box.id):
                raise AssertionError
