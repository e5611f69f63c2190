"""How long simultaneous clean-ups can take."""

from __future__ import annotations

import anyio
import pytest

from anyspawn import Launch
from anyspawn._spawn import remote
from anyspawn._spawn.connection import BOUNDS

pytestmark = pytest.mark.anyio

REMOTE = Launch(argv=["docker"], remote=True)


async def test_each_adds_to_the_time_of_all():
    """One that begins, for those before it, the step that they are in, and itself."""
    with remote.patience(REMOTE, 5) as first, first.step():
        assert first.for_a_step == BOUNDS.remote
        began, deadline = anyio.current_time(), first.scope.deadline
        with remote.patience(REMOTE, 5) as second, remote.patience(REMOTE, 5) as third:
            assert first.scope.deadline == pytest.approx(deadline + 2 * BOUNDS.each)
            assert second.scope.deadline >= began + 5 + 2 * BOUNDS.each
            assert third.for_a_step == BOUNDS.remote + 2 * BOUNDS.each
    with remote.patience(REMOTE, 5) as alone:
        assert alone.for_a_step == BOUNDS.remote


async def test_a_step_under_way_follows():
    """It ends when the time does that it is given while it runs."""
    ended = []
    with remote.patience(REMOTE, 60) as own:
        with own.step():
            own.add(-BOUNDS.remote - 1)
            await anyio.sleep_forever()
        ended.append("the step")
    assert ended == ["the step"]


async def test_local_work_does_not_count():
    """Nobody else is waited for there."""
    local = Launch(argv=["true"])
    with remote.patience(REMOTE, 5) as first:
        deadline = first.scope.deadline
        with remote.patience(local, 5) as second:
            assert first.scope.deadline == deadline
            assert second.for_a_step == BOUNDS.remote
