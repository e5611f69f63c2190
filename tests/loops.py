"""The event loops that tests run on."""

from __future__ import annotations

import pytest

LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
"""The loops of most tests."""

EVERY_LOOP = [*LOOPS, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
"""The loops of the core's tests."""
