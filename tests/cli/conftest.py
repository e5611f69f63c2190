"""The command line in forks of one interpreter."""

from __future__ import annotations

import pytest

from warm import COMMAND_LINE


@pytest.fixture(scope="module", autouse=True)
def command_line():
    with COMMAND_LINE:
        yield
