"""A Python session in a box in pods: an existing one, and a new one."""

from __future__ import annotations

import pytest

import anyspawn
import boxes
from anyspawn import KubectlExec, KubectlRun

pytestmark = pytest.mark.anyio


async def test_python(space, python):
    for sandbox in (
        KubectlExec(python, namespace=space.name, default_timeout=60),
        KubectlRun("python:3-slim", namespace=space.name, default_timeout=60),
    ):
        async with sandbox, anyspawn.open_box(sandbox) as box:
            await boxes.python(box)
