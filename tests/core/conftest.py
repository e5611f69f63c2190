"""The event loops of the core."""

from __future__ import annotations

import pytest

from loops import EVERY_LOOP


@pytest.fixture(params=EVERY_LOOP)
def anyio_backend(request):
    return request.param
