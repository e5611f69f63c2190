"""A large transfer through a stream to a port of a box."""

from __future__ import annotations

import sys

import pytest

import anyspawn
import streamed
from anyspawn import Bubblewrap
from machine import bubblewrap_works

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
async def test_much_data_in_namespaces():
    sandbox = Bubblewrap(readonly=sorted({sys.prefix, sys.base_prefix}), default_timeout=60)
    async with anyspawn.open_box(sandbox) as box:
        await streamed.much(box, sys.executable)
