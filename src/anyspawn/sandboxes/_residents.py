"""`ResidentSandbox`: what the sandboxes have in common in which a supervisor may stay for the next
command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
from attrs import Attribute, field, frozen

from anyspawn._env import Env
from anyspawn._model import Command, Completed, Launch
from anyspawn._sandbox import ArgvSandbox
from anyspawn.exceptions import ConfigError

if TYPE_CHECKING:
    from anyspawn._spawn.resident import Pool, Pools

__all__ = ["CLIENT_ENV", "MOST_BY_ITSELF", "ResidentSandbox", "started_ahead"]

CLIENT_ENV = Env({"GOMAXPROCS": "1"})
"""Of a client that stays, which is written in Go: with threads of its own for each processor eight
of them get in each other's way.
"""
MOST_BY_ITSELF = 8
"""How many supervisors ``resident="auto"`` keeps."""


def _no_pools() -> Pools:
    from anyspawn._spawn.resident import Pools

    return Pools()


def started_ahead(_: object, __: Attribute[Any], value: Any) -> None:
    """Check the ``resident`` of a sandbox in which each serves one command."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"resident must be an int of 0 (none) or more, not {value!r}")


def _idle(_: object, __: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(
            f"idle_timeout must be a number of seconds above 0 (math.inf: never), not {value!r}"
        )


@frozen(kw_only=True)
class ResidentSandbox(ArgvSandbox):
    """The base of sandboxes that can keep supervisors.

    Args:
        resident: How many supervisors may stay and serve one command after the other or, where the
            place is the command's own, wait for one each. Default 0: each command has its own.
        idle_timeout: Seconds after which one that serves nobody ends. Default 60.
    """

    resident: int | Literal["auto"] = 0
    idle_timeout: float = field(default=60.0, validator=_idle)
    # Not of its own: copies by `attrs.evolve` have the same. A type that is loaded only where there
    # are some could not be resolved.
    _pools: Any = field(
        factory=_no_pools, alias="_pools", repr=False, eq=False, metadata={"config": False}
    )

    async def carry(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> Completed:
        """See ``launch`` through, with a supervisor that stays where there are some."""
        if launch.task is None or not launch.task.stays:
            return await super().carry(launch, command, began=began, timeout=timeout)
        pool = self._pool(launch)
        return await pool.run(launch, command, mode=self.name, began=began, timeout=timeout)

    def _pool(self, launch: Launch) -> Pool:
        """Return the pool of those that a launch begins.

        Copies of the sandbox share it as far as they begin the same: the argv does not say all.
        """
        most = MOST_BY_ITSELF if self.resident == "auto" else self.resident
        place = (launch.argv, launch.fd_args, launch.limits, most, self.idle_timeout)
        pool: Pool = self._pools.get(place, most, self.idle_timeout, once=self._once)
        return pool

    @property
    def _once(self) -> bool:
        """Whether a supervisor serves one command alone, and the next one is started ahead."""
        return False

    def alone(self) -> Self:
        """Return the sandbox without residents."""
        return self._changed(resident=0) if self.resident else self

    def _changed(self, **changes: Any) -> Self:
        """Return a copy of this sandbox with its places, and what it knows of its containers or
        pods.
        """
        changed = attrs.evolve(self, **changes)
        for attribute in attrs.fields(type(self)):
            if not attribute.init:
                object.__setattr__(changed, attribute.name, getattr(self, attribute.name))
        return changed

    async def aclose(self) -> None:
        """Close the supervisors that this event loop keeps here, in bounded time, with those of
        copies by `attrs.evolve`. A later call opens new ones.
        """
        await self._pools.aclose()
