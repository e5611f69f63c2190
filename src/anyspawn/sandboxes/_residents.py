"""`ResidentSandbox`: the base of sandboxes in which a supervisor can stay for the next command."""

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
"""Settings for a client that stays, which is written in Go: with a thread for each processor, eight
clients slow each other down.
"""
MOST_BY_ITSELF = 8
"""How many supervisors ``resident="auto"`` keeps."""


def _no_pools() -> Pools:
    from anyspawn._spawn.resident import Pools

    return Pools()


def started_ahead(_: object, __: Attribute[Any], value: Any) -> None:
    """Check the ``resident`` of a sandbox whose residents serve one command each."""
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
        resident: How many supervisors stay and serve one command after another; in a sandbox that
            is made for each command, how many wait for one command each. Default 0: each command
            has its own.
        idle_timeout: Seconds after which an idle one exits. Default 60.
    """

    resident: int | Literal["auto"] = 0
    idle_timeout: float = field(default=60.0, validator=_idle)
    # Copies by `attrs.evolve` share it. `Any`: attrs could not resolve a type that is imported
    # late.
    _pools: Any = field(
        factory=_no_pools, alias="_pools", repr=False, eq=False, metadata={"config": False}
    )

    async def carry(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> Completed:
        """Run ``launch`` to its end, with a resident if the sandbox keeps some."""
        task = launch.task
        if task is None or not task.stays:
            return await super().carry(launch, command, began=began, timeout=timeout)
        pool = self._pool(launch)
        return await pool.run(launch, task, command, mode=self.name, began=began, timeout=timeout)

    def _pool(self, launch: Launch) -> Pool:
        """Return the pool of the residents that a launch starts.

        Copies of the sandbox share a pool if they start equal residents; the argv alone does not
        decide that.
        """
        most = MOST_BY_ITSELF if self.resident == "auto" else self.resident
        place = (launch.argv, launch.fd_args, launch.limits, most, self.idle_timeout)
        pool: Pool = self._pools.get(place, most, self.idle_timeout, once=self._once)
        return pool

    @property
    def _once(self) -> bool:
        """Whether a resident serves only one command, and the next one is started in advance."""
        return False

    def alone(self) -> Self:
        """Return the sandbox without residents."""
        return self._changed(resident=0) if self.resident else self

    def _changed(self, **changes: Any) -> Self:
        """Return a copy that shares this sandbox's slots, and what it knows of its targets."""
        changed = attrs.evolve(self, **changes)
        for attribute in attrs.fields(type(self)):
            if not attribute.init:
                object.__setattr__(changed, attribute.name, getattr(self, attribute.name))
        return changed

    async def aclose(self) -> None:
        """Close this event loop's residents of this sandbox and of its copies by `attrs.evolve`, in
        bounded time. A later call opens new ones.
        """
        await self._pools.aclose()
