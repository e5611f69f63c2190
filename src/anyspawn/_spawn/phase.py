"""The state of a call: one value, and the table of what can happen to it. Pure.

A call is in exactly one phase. The first reason to end it stays. What is not in the table cannot
happen.
"""

from __future__ import annotations

from enum import Enum, auto

from attrs import frozen

__all__ = ["NEXT", "Event", "Phase", "State", "Why"]


class Phase(Enum):
    """The phase of a call."""

    RUNNING = auto()
    """The local process runs, and so may the program."""
    DRAINING = auto()
    """The program has exited; its output streams are read to their end, for `wait_delay` at most.
    """
    ENDING = auto()
    """What is left is being killed, and checked until it is gone."""
    SETTLED = auto()
    """Nothing is left to wait for."""


class Why(Enum):
    """Why a program is killed before it exits."""

    TIMEOUT = auto()
    OVERFLOW = auto()
    RAISED = auto()
    """The caller's callback raised an exception."""
    CANCELLED = auto()
    CLOSED = auto()
    """The block of a live process was left."""


class Event(Enum):
    """What happens to a call."""

    EXITED = auto()
    """The local process has exited, or the supervisor says that the program has."""
    STOPPED = auto()
    """The call must end, for a reason of `Why`."""
    LEFT_SOMETHING = auto()
    """The program has exited, but something of it may be left."""
    GONE = auto()
    """Nothing is left, or the time of the clean-up is up."""


NEXT = {
    (Phase.RUNNING, Event.EXITED): Phase.DRAINING,
    (Phase.RUNNING, Event.STOPPED): Phase.ENDING,
    (Phase.DRAINING, Event.STOPPED): Phase.ENDING,
    (Phase.DRAINING, Event.LEFT_SOMETHING): Phase.ENDING,
    (Phase.DRAINING, Event.GONE): Phase.SETTLED,
    (Phase.ENDING, Event.STOPPED): Phase.ENDING,
    (Phase.ENDING, Event.GONE): Phase.SETTLED,
}


@frozen
class State:
    """The phase of a call, and why it is being ended, if it is."""

    phase: Phase = Phase.RUNNING
    why: Why | None = None

    def after(self, event: Event, why: Why | None = None) -> State:
        """Return the state after an event.

        Raises:
            KeyError: The event cannot happen in this phase.
        """
        phase = NEXT[self.phase, event]
        # A callback's exception reaches the caller, whatever came first.
        return State(phase, why if why is Why.RAISED else self.why or why)
