"""The states of a call as a table: every phase, and every event in it."""

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
    """Each event leads to the phase in the table; an event that the table does not list is an
    error.
    """
    if (phase, event) in HAPPENS:
        assert State(phase).after(event).phase is HAPPENS[phase, event]
    else:
        with pytest.raises(KeyError):
            State(phase).after(event)


def test_the_first_reason_counts():
    """The first reason to stop is kept. Only an exception replaces it, because it must reach the
    caller.
    """
    state = State().after(Event.STOPPED, Why.TIMEOUT)
    assert state.why is Why.TIMEOUT
    assert state.after(Event.STOPPED, Why.CANCELLED).why is Why.TIMEOUT
    assert state.after(Event.STOPPED, Why.RAISED).why is Why.RAISED
    assert State().after(Event.EXITED).why is None
