"""Inspect's own checks of sandbox providers, over boxes."""

from __future__ import annotations

import os
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


def test_the_example(tmp_path):
    """Inspect evaluates a task whose sample has a box, with its mock model."""
    example = Path(__file__).parents[2] / "examples" / "runtimes" / "inspect_task.py"
    code = "import sys; from inspect_ai import eval; from inspect_task import boxed; (log,) = eval(boxed(), model='mockllm/model', display='none', log_dir=sys.argv[1]); print(log.status, log.results.scores[0].metrics['accuracy'].value)"
    env = {**os.environ, "PYTHONPATH": str(example.parent)}
    argv = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["success", "1.0"], done


@pytest.mark.parametrize("name", ["anyspawn", "docker"])
def test_tools_that_inspect_injects(name, tmp_path):
    """`exec_remote` and the tools reach the server that Inspect leaves running in the box. Inspect
    finds the provider `anyspawn` by its entry point.
    """
    argv = [sys.executable, str(Path(__file__).with_name("inspect_tools.py")), name, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 out\n"), done
    assert "edited" in done.stdout, done
    assert done.stdout.endswith("success\n"), done


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
