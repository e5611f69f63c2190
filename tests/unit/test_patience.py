"""The time limits of simultaneous clean-ups."""

from __future__ import annotations

import anyio
import pytest

from anyspawn import Launch
from anyspawn._spawn import remote
from anyspawn._spawn.connection import BOUNDS

pytestmark = pytest.mark.anyio

REMOTE = Launch(argv=["docker"], remote=True)


async def test_each_adds_to_the_time_of_all():
    """Each clean-up that begins extends the limits of those before it, of the step that they are
    in, and its own.
    """
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
    """A step that is running follows a change of its time limit."""
    ended = []
    with remote.patience(REMOTE, 60) as own:
        with own.step():
            own.add(-BOUNDS.remote - 1)
            await anyio.sleep_forever()
        ended.append("the step")
    assert ended == ["the step"]


async def test_local_work_does_not_count():
    """A local clean-up does not share a daemon with others, so it extends no limit."""
    local = Launch(argv=["true"])
    with remote.patience(REMOTE, 5) as first:
        deadline = first.scope.deadline
        with remote.patience(local, 5) as second:
            assert first.scope.deadline == deadline
            assert second.for_a_step == BOUNDS.remote
