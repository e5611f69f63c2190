"""Tools stand on the core, which is tested with uvloop too."""

from __future__ import annotations

import pytest


@pytest.fixture(
    params=[pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("trio", {}), id="trio")]
)
def anyio_backend(request):
    return request.param
