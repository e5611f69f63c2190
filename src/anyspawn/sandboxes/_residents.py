"""`ResidentSandbox`: what the sandboxes have in common in which a supervisor may stay for the next
command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import Attribute, field, frozen

from anyspawn._env import Env
from anyspawn._model import Command, Completed, Launch
from anyspawn._sandbox import ArgvSandbox
from anyspawn.exceptions import ConfigError

if TYPE_CHECKING:
    from anyspawn._spawn.resident import Pool, Pools

__all__ = ["CLIENT_ENV", "ResidentSandbox"]

CLIENT_ENV = Env({"GOMAXPROCS": "1"})
"""Of a client that stays, which is written in Go: with threads of its own for each processor eight
of them get in each other's way.
"""


def _no_pools() -> Pools:
    from anyspawn._spawn.resident import Pools

    return Pools()


def _count(_: object, __: Attribute[Any], value: Any) -> None:
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

    resident: int = field(default=0, validator=_count)
    idle_timeout: float = field(default=60.0, validator=_idle)
    # A type that is loaded only where there are some could not be resolved.
    _pools: Any = field(init=False, factory=_no_pools, repr=False, eq=False)

    async def serve(
        self, launch: Launch, command: Command, *, began: float, timeout: float, fresh: bool = False
    ) -> Completed:
        """See ``launch`` through, with a supervisor that stays.

        Args:
            launch: Its argv without the command's begins a supervisor; its stdin is the command's
                task.
            command: What it stands for.
            began: When the call began, on the event loop's clock.
            timeout: Seconds from then on that the program has.
            fresh: The supervisor serves this command alone, and the next one is started ahead.
        """
        place = launch.argv[: -len(command.argv)]
        pool: Pool = self._pools.get(place, self.resident, self.idle_timeout, fresh=fresh)
        return await pool.run(launch, command, mode=self.name, began=began, timeout=timeout)

    def share_with(self, other: ResidentSandbox) -> None:
        """Have ``other``, a copy of this sandbox for one call, use the same supervisors."""
        object.__setattr__(other, "_pools", self._pools)

    def _alone(self) -> Self:
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
        """Close the supervisors that this event loop keeps here, in bounded time. A later call
        opens new ones.
        """
        await self._pools.aclose()
