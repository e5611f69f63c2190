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
        ("direct:0123", None, False, ConfigError, "belongs to one process"),
        ("bubblewrap:0123", None, False, ConfigError, "belongs to one process"),
        ("", None, False, ConfigError, "pass Box.id unchanged"),
        ("a-container", None, False, ConfigError, "pass Box.id unchanged"),
        ("docker_exec:", None, False, ConfigError, "pass Box.id unchanged"),
        ("docker_exec:x?docker_path=/tmp/x", None, False, ConfigError, "pass Box.id unchanged"),
        ("docker_exec:x?workdir", None, False, ConfigError, "pass Box.id unchanged"),
        ("docker_exec:x?workdir=relative", None, False, ConfigError, "pass Box.id unchanged"),
        ("docker_exec:--privileged", None, False, ConfigError, "container must not start"),
        ("docker_run:postgres", None, True, ConfigError, "pass Box.id unchanged"),
        ("docker_exec:x", None, True, ConfigError, "leave ends out"),
        (OWN, Direct(), False, ConfigError, "not a Direct; pass such a sandbox, or leave it out"),
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
        with pytest.raises(ConfigError, match="belongs to one process"):
            async with anyspawn.attach_box(box.id):
                raise AssertionError
