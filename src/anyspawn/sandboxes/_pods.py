"""`Pods`: the pods of a selector or a workload, and which of them takes the next call."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
from attrs import define, field

from anyspawn._model import Completed
from anyspawn.exceptions import SpawnError, SpawnTimeoutError, TransportError

__all__ = ["Pod", "Pods"]

_AGE = 2.0
"""Seconds after which the next call asks for the list of pods again."""
_OLDEST = 30.0
"""Seconds for which a list still serves if the next one fails."""
_PATIENCE = 2.0
"""Seconds that a new list can take while the last one still serves."""
_FORGET = 1.0
"""Seconds for which a failed list also fails the other calls that waited for it."""
_LEAST = 0.1
_COLUMNS = (
    "{range .items[*]}{.metadata.name}{'\\t'}{.metadata.uid}{'\\t'}{.metadata.deletionTimestamp}{'\\t'}{.status.phase}{'\\t'}"
    "{.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}"
).replace("'", '"')
_OPERATORS = {"In": "in", "NotIn": "notin"}


@define(eq=False)
class Pod:
    """A pod that takes calls, or did.

    Args:
        name: Its name.
        ready: Whether it was Ready in the last list, and no call has lost it since.
        in_flight: How many calls it has now.
        used: When it last got a call: a count, not a time.
        without_sh: Whether it is known to have no sh.
    """

    name: str
    ready: bool = True
    in_flight: int = 0
    used: int = 0
    without_sh: bool = False


@define(eq=False)
class Pods:
    """The pods of a selector or a workload, for one event loop.

    Args:
        ask: Runs a kubectl command.
        workload: ``KIND/NAME``; its selector is looked up.
        selector: A label selector, without a workload.
        per_pod: How many calls a pod takes at once. ``None``: no limit.
    """

    _ask: Callable[..., Awaitable[Completed]]
    _workload: str | None
    _selector: str | None
    _per_pod: int | None
    _pods: dict[str, Pod] = field(
        init=False, factory=dict
    )  # by uid, which distinguishes pods of one name
    _listed: float = field(init=False, default=-float("inf"))
    _wanted: bool = field(init=False, default=False)
    _failed: tuple[float, SpawnError] | None = field(init=False, default=None)
    _asking: anyio.Lock = field(init=False, factory=anyio.Lock)
    _turn: anyio.Lock = field(init=False, factory=anyio.Lock)
    _freed: anyio.Event = field(init=False, factory=anyio.Event)
    _count: Iterator[int] = field(init=False, factory=lambda: itertools.count(1))

    async def pick(self, *, deadline: float) -> Pod | SpawnError:
        """Count a call on the pod with the fewest calls and return that pod, or return the error.

        Args:
            deadline: Until when to wait for a pod that can take another call.
        """
        with anyio.CancelScope(deadline=deadline):
            problem = await self._bring_up_to_date(deadline)
            if problem is not None:
                return problem
            async with self._turn:  # first come, first served
                return await self._choose(deadline)
        if not self._pods or anyio.current_time() - self._listed > _OLDEST:
            return _not_listed()
        return SpawnTimeoutError(
            "no pod was free in time; raise max_concurrent_per_pod, or add pods"
        )

    async def _choose(self, deadline: float) -> Pod | SpawnError:
        while True:
            ready = [pod for pod in self._pods.values() if pod.ready]
            free = [pod for pod in ready if self._per_pod is None or pod.in_flight < self._per_pod]
            if free:
                chosen = min(free, key=lambda pod: (pod.in_flight, pod.used))
                chosen.in_flight += 1
                chosen.used = next(self._count)
                return chosen
            if ready:
                with anyio.move_on_after(_AGE):
                    await self._freed.wait()
            elif not self._wanted:
                what = f"no pod of {self._workload or self._selector} is Ready ({len(self._pods)} of it are not)"
                return TransportError(f"{what}; see kubectl get pods", started=False)
            problem = await self._bring_up_to_date(deadline)
            if problem is not None:
                return problem

    def release(self, pod: Pod) -> None:
        """Count a call of a pod as over."""
        pod.in_flight -= 1
        self._freed.set()
        self._freed = anyio.Event()

    def lose(self, pod: Pod) -> None:
        """Leave out a pod that did not take its call, until a new list has it."""
        pod.ready = False
        self._wanted = True

    async def _bring_up_to_date(self, deadline: float) -> SpawnError | None:
        """Ask for a new list if the last one is too old. One call asks; the others use the last
        one.
        """
        if not self._is_old():
            return None
        usable = (
            any(pod.ready for pod in self._pods.values())
            and anyio.current_time() - self._listed < _OLDEST
        )
        if usable and self._asking.locked():
            return None
        async with self._asking:
            if not self._is_old():
                return None
            now = anyio.current_time()
            if self._failed is None or now - self._failed[0] > _FORGET:
                self._wanted = False
                problem = await self._list(
                    min(_PATIENCE, deadline - now) if usable else deadline - now
                )
                self._failed = None if problem is None else (anyio.current_time(), problem)
            return None if usable or self._failed is None else self._failed[1]

    def _is_old(self) -> bool:
        return self._wanted or anyio.current_time() - self._listed >= _AGE

    async def _list(self, seconds: float) -> SpawnError | None:
        asked = anyio.current_time()
        selector = self._selector
        if selector is None:  # looked up each time: a service's selector can change
            described = await self._ask(
                "get", str(self._workload), "-o", "json", seconds=max(seconds, _LEAST)
            )
            if described.error is not None:
                return _never_started(described.error)
            selector = _selector_of(json.loads(described.stdout))
            if not selector:
                return TransportError(
                    f"{self._workload} has no selector, and so no pods; name another", started=False
                )
        columns = f"jsonpath={_COLUMNS}"
        listed = await self._ask(
            "get", "pods", "-l", selector, "-o", columns, seconds=max(seconds, _LEAST)
        )
        if listed.error is not None:
            return _never_started(listed.error)
        known, self._pods = self._pods, {}
        for line in listed.stdout.decode().splitlines():
            name, uid, deleted, phase, ready = line.split("\t")
            pod = self._pods[uid] = known.get(uid) or Pod(name)
            pod.ready = not deleted and phase == "Running" and ready == "True"
        self._listed = asked
        self._freed.set()
        self._freed = anyio.Event()
        return None


def _not_listed() -> SpawnTimeoutError:
    return SpawnTimeoutError("the API server did not list the pods in time; see kubectl get pods")


def _never_started(error: SpawnError) -> SpawnError:
    """Return the error of a failed list of pods, as that of a call that did not start."""
    if isinstance(error, SpawnTimeoutError):
        return _not_listed()
    return TransportError(str(error), started=False)


def _selector_of(workload: Mapping[str, Any]) -> str:
    """Return the label selector of a deployment, stateful set or service, as kubectl takes it."""
    selector = workload.get("spec", {}).get("selector") or {}
    if workload["kind"] in {"Service", "ReplicationController"}:
        selector = {"matchLabels": selector}
    terms = [f"{name}={value}" for name, value in selector.get("matchLabels", {}).items()]
    for term in selector.get("matchExpressions", ()):
        if term["operator"] in _OPERATORS:
            terms.append(
                f"{term['key']} {_OPERATORS[term['operator']]} ({','.join(term['values'])})"
            )
        else:
            terms.append(term["key"] if term["operator"] == "Exists" else f"!{term['key']}")
    return ",".join(terms)
