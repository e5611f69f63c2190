"""The event loops of the kit's runs: a check on uvloop would be the same but for the start of the
program, and that has tests of its own.
"""

from __future__ import annotations

import pytest

from engines import LOOPS


@pytest.fixture(params=LOOPS)
def anyio_backend(request):
    return request.param
