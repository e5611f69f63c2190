"""What a call can be in, as a table: every phase, and every event in it."""

from __future__ import annotations

import itertools

import pytest

from anyspawn._spawn.phase import Event, Phase, State, Why

HAPPENS = {
    (Phase.RUNNING, Event.EXITED): Phase.DRAINING,
    (Phase.RUNNING, Event.STOPPED): Phase.ENDING,
    (Phase.DRAINING, Event.STOPPED): Phase.ENDING,
    (Phase.DRAINING, Event.LEFT_SOMETHING): Phase.ENDING,
    (Phase.DRAINING, Event.GONE): Phase.SETTLED,
    (Phase.ENDING, Event.STOPPED): Phase.ENDING,
    (Phase.ENDING, Event.GONE): Phase.SETTLED,
}


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
def test_every_event_in_every_phase(phase, event):
    """It leads where the table says, and what the table does not have cannot happen."""
    if (phase, event) in HAPPENS:
        assert State(phase).after(event).phase is HAPPENS[phase, event]
    else:
        with pytest.raises(KeyError):
            State(phase).after(event)


def test_the_first_reason_counts():
    """Whatever else wants the end later, but for an exception, which reaches the caller."""
    state = State().after(Event.STOPPED, Why.TIMEOUT)
    assert state.why is Why.TIMEOUT
    assert state.after(Event.STOPPED, Why.CANCELLED).why is Why.TIMEOUT
    assert state.after(Event.STOPPED, Why.RAISED).why is Why.RAISED
    assert State().after(Event.EXITED).why is None
