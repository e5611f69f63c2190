"""The conformance kit over the sandboxes that need no engine."""

from __future__ import annotations

import pytest

from anyspawn import Bubblewrap, Direct
from anyspawn.testing import SandboxConformance
from loops import EVERY_LOOP
from machine import bubblewrap_works

needs_bwrap = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")


class TestDirect(SandboxConformance):
    contains = False

    @pytest.fixture(params=EVERY_LOOP)
    def anyio_backend(self, request):
        return request.param

    @pytest.fixture
    def sandbox(self):
        return Direct()


@needs_bwrap
class TestBubblewrap(SandboxConformance):
    knows_signal = False
    knows_left = False

    @pytest.fixture
    def sandbox(self):
        return Bubblewrap(default_timeout=30)


@needs_bwrap
@pytest.mark.heavy
class TestBubblewrapResident(SandboxConformance):
    knows_signal = False

    @pytest.fixture
    async def sandbox(self):
        async with Bubblewrap(resident=2, default_timeout=30) as sandbox:
            yield sandbox
