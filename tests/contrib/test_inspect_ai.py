"""Inspect's own checks of sandbox providers, over boxes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai.util._sandbox.self_check import *  # noqa: F403  as its docstring says

from anyspawn import Bubblewrap
from anyspawn.contrib.inspect_ai import provider
from contrib.inspect_tools import DOCKER

pytestmark = pytest.mark.anyio
SANDBOXES = {"bubblewrap": Bubblewrap(default_timeout=60), "docker_run": DOCKER}
CANNOT = {
    "bubblewrap": {"test_exec_as_user"},
    # root can read and write everything
    "docker_run": {
        "test_read_file_not_allowed",
        "test_write_binary_file_without_permissions",
        "test_write_text_file_without_permissions",
    },
}


@pytest.mark.parametrize("name", ["anyspawn", "docker_run"])
def test_tools_that_inspect_injects(name, tmp_path):
    """`exec_remote` and the tools reach the server that Inspect leaves running in the box. Inspect
    finds the provider `anyspawn` by its entry point, and the example registers its own.
    """
    argv = [sys.executable, str(Path(__file__).with_name("inspect_tools.py")), name, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 out\n"), done
    assert "edited" in done.stdout, done
    ended = "success success\n1.0\n" if name == "anyspawn" else "success\n\n"
    assert done.stdout.endswith(ended), done


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=list(SANDBOXES))
async def sandbox_env(request):
    if request.node.originalname in CANNOT[request.param]:
        request.applymarker(pytest.mark.xfail(strict=True))
    cls = provider(f"test-{request.param}", SANDBOXES[request.param])
    environments = await cls.sample_init("task", None, {})
    try:
        yield environments["default"]
    finally:
        await cls.sample_cleanup("task", None, environments, interrupted=False)
