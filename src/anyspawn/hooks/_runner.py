"""Many hooks at once: one decision of all filters, and the tasks of the observers."""

from __future__ import annotations

import math
import os
from collections.abc import (
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import anyio
from attrs import evolve

from anyspawn._model import Sandbox
from anyspawn._registry import nearest
from anyspawn._spawn.tasks import PerLoop, see_through, start_in_background
from anyspawn._telemetry import warn
from anyspawn.exceptions import ConfigError
from anyspawn.hooks._decision import Decision
from anyspawn.hooks._exec import Asking, ExecHook, HookCall, Told
from anyspawn.hooks._phases import Phase
from anyspawn.hooks._rewrite import joined
from anyspawn.hooks._settings import ClaudeSettings, Others, project_inside

__all__ = ["DENIED_BEFORE", "HookRunner", "Served", "run_hooks"]

DENIED_BEFORE = "a hook before it denied"
_MAX_CONCURRENT = 64
_MAX_OBSERVING = 1000
_MAX_OBSERVING_BYTES = 64 * 2**20
_CLOSING = 30.0


class Served(Protocol):
    """A program that can have a server, which its last user stops."""

    def hold(self) -> None: ...

    async def release(self) -> None: ...


def _checked(hooks: Iterable[ExecHook]) -> tuple[ExecHook, ...]:
    found = tuple(hooks)
    names: set[str] = set()
    for hook in found:
        if not isinstance(hook, ExecHook):
            raise ConfigError(f"hooks: {hook!r} is not an ExecHook")
        if hook.name in names:
            raise ConfigError(f"hooks: two have the name {hook.name!r}; rename one")
        names.add(hook.name)
    return found


class HookRunner:
    """Runs hooks, and owns the observers: an async context manager.

    You can enter it in one task and leave it in another, and several of them in any order. At the
    end of the block it waits up to ``drain_timeout`` for observers and for calls of `run` in other
    tasks, then kills the observers that still run. After an exception or a cancellation it kills
    them at once. Then it stops the servers of its hooks, unless another open runner has the same
    hooks.

    Args:
        hooks: The hooks that `run` runs; if several deny, the first in this order decides.
        max_concurrent: How many hook processes can run at once. Default 64. The wait for a slot
            counts towards a hook's timeout.
        max_observing: How many observers can run or wait. Default 1000. More are dropped with a
            warning in the log; the caller never waits for them.
        max_observing_bytes: How many bytes of payloads the observers can hold; hooks with the same
            payload share it. Default 64 MiB. More are dropped in the same way.
        drain_timeout: Seconds to wait for observers and running calls at the end of the block.
            Default 10.
    """

    def __init__(
        self,
        hooks: Iterable[ExecHook] = (),
        *,
        max_concurrent: int = _MAX_CONCURRENT,
        max_observing: int = _MAX_OBSERVING,
        max_observing_bytes: int = _MAX_OBSERVING_BYTES,
        drain_timeout: float = 10.0,
    ) -> None:
        for name, number in (
            ("max_concurrent", max_concurrent),
            ("max_observing", max_observing),
            ("max_observing_bytes", max_observing_bytes),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigError(f"{name} must be a whole number above 0, not {number!r}")
        if (
            isinstance(drain_timeout, bool)
            or not isinstance(drain_timeout, (int, float))
            or not 0 <= drain_timeout < math.inf
        ):
            raise ConfigError(
                f"drain_timeout must be a finite number of seconds, 0 or more, not {drain_timeout!r}"
            )
        self._hooks = _checked(hooks)
        self._limits = (max_concurrent, max_observing, max_observing_bytes)
        self._drain_timeout = drain_timeout
        self._desk: _Desk | None = None

    @classmethod
    def from_claude_settings(
        cls,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        managed: Iterable[str | os.PathLike[str]] = (),
        sandbox: Sandbox | None = None,
        project: str | os.PathLike[str] | None = None,
        others: Others = "refuse",
        on_failure: Literal["deny", "allow", "as_claude"] = "deny",
        rewrites: bool | Collection[str] = False,
        **options: Any,
    ) -> Self:
        """Return a runner of the hooks in settings files of Claude Code.

        Each hook is named by its event and a number, such as ``PreToolUse:1``.

        Args:
            paths: One file, or several, the least important first: the user's, the project's, the
                local ones. The hooks of all files run; a hook that appears twice runs once.
            managed: Files of an administrator, whose hooks the others' ``disableAllHooks`` does not
                disable.
            sandbox: Where all of them run. Default: `anyspawn.Direct`, on this host.
            project: The project's folder, as the hooks see it. Default: on this host and in
                `Bubblewrap`, which must bind it, the folder of the last file; elsewhere, the folder
                in which programs start.
            others: How to treat hooks that are not programs (``http``, ``prompt``, ...):
                ``"refuse"`` (default), or ``"skip"`` with a warning in the log.
            on_failure: As for `ExecHook`. A hook with ``onFailure: "block"`` still denies.
            rewrites: Which hooks can change a tool's input or output: all, none (default), or those
                with these names.
            options: As for the class.

        Raises:
            ConfigError: A file is not valid; the message says where.
            OSError: A file cannot be read.
        """
        names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        files = [(os.fspath(path), _read(path)) for path in names]
        above = [(os.fspath(path), _read(path)) for path in managed]
        settings = ClaudeSettings.read(files, managed=above, others=others)
        for what in settings.skipped:
            warn("anyspawn.hooks", "%s, and was passed over", what)
        folder = None if project is None else os.fspath(project)
        if folder is None and names:
            folder = project_inside(os.fspath(names[-1]), sandbox)
        hooks = settings.hooks(
            sandbox=sandbox, project=folder, on_failure=on_failure, rewrites=rewrites
        )
        return cls(hooks, **options)

    async def __aenter__(self) -> Self:
        if self._desk is not None:
            raise RuntimeError("the HookRunner is open already; make another one of the same hooks")
        self._desk = _Desk(*self._limits)
        for program in self._served:
            program.hold()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._desk is not None
        desk, self._desk = self._desk, None
        try:
            if exc is None:
                with anyio.move_on_after(self._drain_timeout):
                    await desk.drain()
        finally:
            if desk.observing or self._served:
                await see_through(lambda: self._end(desk), _CLOSING)
            else:
                desk.stop()

    async def _end(self, desk: _Desk) -> None:
        await desk.end()
        async with anyio.create_task_group() as tasks:
            for program in self._served:
                tasks.start_soon(program.release)

    @property
    def _served(self) -> list[Served]:
        return [hook for hook in self._hooks if hook.runtime == "server"]

    @property
    def hooks(self) -> tuple[ExecHook, ...]:
        """The hooks that it was made from."""
        return self._hooks

    def __iter__(self) -> Iterator[ExecHook]:
        return iter(self._hooks)

    def __getitem__(self, name: str) -> ExecHook:
        for hook in self._hooks:
            if hook.name == name:
                return hook
        raise KeyError(
            f"no hook is called {name!r}{nearest(name, [hook.name for hook in self._hooks])}"
        )

    async def run(
        self,
        phase: Phase,
        payload: Any,
        *,
        hooks: Iterable[ExecHook] | None = None,
        seen: list[HookCall] | None = None,
    ) -> Decision:
        """Run the hooks of ``phase``, as `run_hooks` does.

        Args:
            phase, payload: As for `run_hooks`.
            hooks: Instead of the runner's own.
            seen: A list that gets a `HookCall` for each hook as it finishes. Observers are in it
                once the runner is closed.
        """
        if self._desk is None:
            raise RuntimeError(
                "the HookRunner is not open; use it as 'async with HookRunner(...) as runner:'"
            )
        return await self._desk.run(
            self._hooks if hooks is None else _checked(hooks), phase, payload, seen
        )


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class _Desk:
    """Runs hooks: filters in the caller's task, observers in separate tasks.

    Args:
        max_concurrent: How many processes can run at once, of both kinds.
        max_observing: How many observers there can be.
        max_bytes: How many bytes of payloads those can hold.
    """

    def __init__(
        self,
        max_concurrent: int = _MAX_CONCURRENT,
        max_observing: int = _MAX_OBSERVING,
        max_bytes: int = _MAX_OBSERVING_BYTES,
    ) -> None:
        self._filter_places = anyio.CapacityLimiter(max_concurrent)
        self._observe_places = anyio.CapacityLimiter(max_concurrent)
        self._max_observing = max_observing
        self._max_bytes = max_bytes
        self._scopes: set[anyio.CancelScope] = set()
        self._held: dict[int, int] = {}  # users of each encoded payload, by its identity
        self._bytes = 0
        self._calls = 0
        self._closed = False
        self._news = anyio.Event()

    @property
    def observing(self) -> int:
        """How many observers run or wait."""
        return len(self._scopes)

    async def drain(self) -> None:
        """Wait for the running calls and the observers."""
        while self._calls or self._scopes:
            await self._wait()

    def stop(self) -> None:
        """Start no more observers, and kill the running ones."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()

    async def end(self) -> None:
        """Kill all observers, and wait for that."""
        self.stop()
        while self._scopes:
            await self._wait()

    async def _wait(self) -> None:
        self._news = anyio.Event()
        await self._news.wait()

    async def run(
        self,
        hooks: Sequence[ExecHook],
        phase: Phase,
        payload: Any,
        seen: list[HookCall] | None = None,
    ) -> Decision:
        self._calls += 1
        try:
            return await self._run(hooks, Told.of(phase, payload, seen), payload)
        finally:
            self._calls -= 1
            self._news.set()

    async def _run(self, hooks: Sequence[ExecHook], told: Told, payload: Any) -> Decision:
        phase = told.phase
        asked = [hook for hook in hooks if phase in hook.phases]
        filters = [hook for hook in asked if hook.mode == "filter"]
        judged, changed, blocked = await _in_order(filters, told, payload, self._filter_places)
        if changed is not None:
            told = Told.of(phase, joined(phase, payload, changed), told.seen)
        left = [hook for hook in asked if hook.name not in judged]
        reached: set[str] = set()
        if blocked is not None:
            last = asked[-1] if not blocked.sequential else blocked
            for hook in left:
                if hook.mode == "observe" and asked.index(hook) <= asked.index(last):
                    reached.add(hook.name)
                    self._observe(hook, told)
        stages = _stages(left) if blocked is None else []
        decision = None if blocked is None else judged[blocked.name]
        for stage in stages:
            reached |= {hook.name for hook in stage}
            for hook in stage:
                if hook.mode == "observe":
                    self._observe(hook, told)
            asking = [hook for hook in stage if hook.mode == "filter"]
            decision = await _filter(asking, told, self._filter_places)
            judged |= decision.results
            if decision.blocks:
                break
        for hook in hooks:
            if phase not in hook.phases:
                hook.tell_not_asked(phase, hook.why_not(phase))
            elif hook.name not in judged and hook.name not in reached:
                hook.tell_not_asked(phase, DENIED_BEFORE)
        results = {hook.name: judged[hook.name] for hook in filters if hook.name in judged}
        if decision is not None and decision.blocks:
            return evolve(decision, results=results)
        return evolve(_merged(results, phase), payload=changed, results=results)

    def _observe(self, hook: ExecHook, told: Told) -> None:
        why = ""
        if self._closed:
            why = "its runner was left"
        elif len(self._scopes) >= self._max_observing:
            why = f"{len(self._scopes)} others observe already"
        ask = None if why else hook.asking(told)
        if ask is not None and self._new_bytes(ask.stdin) + self._bytes > self._max_bytes:
            why = f"{self._bytes} bytes of payloads are being observed already"
        if ask is None or why:
            hook.tell_not_asked(told.phase, f"it was left out: {why}")
            warn("anyspawn.hooks", "hook %r was left out: %s", hook.name, why)
            return
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        self._bytes += self._new_bytes(ask.stdin)
        self._held[id(ask.stdin)] = self._held.get(id(ask.stdin), 0) + 1
        try:
            noted = told if told.seen is not None else None  # it holds the payload
            start_in_background(
                self._watch,
                hook,
                ask,
                scope,
                noted,
                name=f"anyspawn hook {hook.name}",
                if_cancelled=lambda: self._through(ask, scope),
            )
        except BaseException:
            self._through(ask, scope)
            raise

    def _new_bytes(self, stdin: bytes) -> int:
        return 0 if id(stdin) in self._held else len(stdin)

    def _through(self, ask: Asking, scope: anyio.CancelScope) -> None:
        """Record, once, that an observer has finished."""
        if scope not in self._scopes:
            return
        self._scopes.remove(scope)
        key = id(ask.stdin)
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
            self._bytes -= len(ask.stdin)
        self._news.set()

    async def _watch(
        self, hook: ExecHook, ask: Asking, scope: anyio.CancelScope, told: Told | None
    ) -> None:
        try:
            with scope:
                await _noted(hook, ask, told, self._observe_places)
        except Exception as exc:  # an observer's failure never reaches the caller
            warn(
                "anyspawn.hooks",
                "hook %r failed (observe: the work goes on): %s",
                hook.name,
                type(exc).__name__,
            )
        finally:
            self._through(ask, scope)


async def run_hooks(hooks: Iterable[ExecHook], phase: Phase, payload: Any) -> Decision:
    """Run all hooks of a phase at once, and return one decision.

    Hooks that can rewrite run first, in declaration order; each sees the payload of the one before.
    Then all other filters judge the final payload at once; those behind a ``sequential`` filter
    wait until it has allowed. The first denial in declaration order decides; as soon as it is
    certain, anyspawn kills the hooks that still run. If none blocks, the decision has the metadata
    of all hooks, later ones over earlier ones, and the final payload if it changed. A denial that
    was enforced after a call does not block, and stays a denial. Observers get the final payload,
    and the caller does not wait for them.

    Args:
        hooks: Hooks with different names. Those of other phases are skipped. An open `HookRunner`
            runs its own hooks, and owns its observers. Otherwise the event loop owns them, and its
            end kills those that still run.
        phase: The phase, such as ``"before_call"``.
        payload: As for `ExecHook.run`.

    Raises:
        ValueError, TypeError: The phase is unknown, its payload is not complete, or two hooks have
            one name.
    """
    if isinstance(hooks, HookRunner):
        return await hooks.run(phase, payload)
    return await _desks.get().run(_checked(hooks), phase, payload)


async def _ask(hook: ExecHook, told: Told, places: anyio.CapacityLimiter) -> Decision:
    return await _noted(hook, hook.asking(told), told, places)


async def _noted(
    hook: ExecHook, ask: Asking, told: Told | None, places: anyio.CapacityLimiter
) -> Decision:
    """Ask a hook, and record what it did if the caller wants to know."""
    if told is None or told.seen is None:
        return await ask(places)
    began, decision = anyio.current_time(), None
    try:
        decision = await ask(places)
    finally:
        told.seen.append(
            HookCall(
                hook=hook.name,
                asked=ask.question is not None,
                seconds=anyio.current_time() - began,
                payload=told.parts,
                decision=decision,
            )
        )
    return decision


async def _in_order(
    filters: Sequence[ExecHook], told: Told, payload: Any, places: anyio.CapacityLimiter
) -> tuple[dict[str, Decision], Any, ExecHook | None]:
    """Ask the hooks that can change the payload, one after another, and before each the
    ``sequential`` filters in front of it.

    Returns:
        Each hook's decision about the final payload, the payload's changed part (``None`` if
        nothing changed), and the hook whose denial stopped this, if any.
    """
    judged: dict[str, Decision] = {}
    changed: Any = None
    last = max((index for index, hook in enumerate(filters) if hook.rewrites), default=-1)
    for hook in filters[: last + 1]:
        if not (hook.rewrites or hook.sequential):
            continue
        decision = judged[hook.name] = await _ask(hook, told, places)
        if decision.blocks:
            return judged, changed, hook
        if decision.payload is not None:
            changed = decision.payload
            payload = joined(told.phase, payload, changed)
            told = Told.of(told.phase, payload, told.seen)
            rewriting = {other.name for other in filters if other.rewrites}
            judged = {name: said for name, said in judged.items() if name in rewriting}
    return judged, changed, None


def _stages(hooks: Sequence[ExecHook]) -> list[list[ExecHook]]:
    """Return hooks in groups that are asked at once; each group but the last ends with a
    ``sequential`` filter.
    """
    stages: list[list[ExecHook]] = [[]]
    for hook in hooks:
        stages[-1].append(hook)
        if hook.sequential:
            stages.append([])
    return [stage for stage in stages if stage]


async def _filter(hooks: Sequence[ExecHook], told: Told, places: anyio.CapacityLimiter) -> Decision:
    finished: list[Decision | None] = [None] * len(hooks)

    def decided() -> Decision | None:
        """Return the denial that no earlier hook can replace."""
        for decision in finished:
            if decision is None:
                return None
            if decision.blocks:
                return decision
        return None

    async def ask(index: int, hook: ExecHook) -> None:
        finished[index] = await _ask(hook, told, places)
        if decided() is not None:
            tasks.cancel_scope.cancel()

    if len(hooks) == 1:
        finished[0] = await _ask(hooks[0], told, places)
    else:
        async with anyio.create_task_group() as tasks:
            for index, hook in enumerate(hooks):
                tasks.start_soon(ask, index, hook)
    results = {
        hook.name: decision
        for hook, decision in zip(hooks, finished, strict=True)
        if decision is not None
    }
    denial = decided()
    return evolve(_merged(results, told.phase) if denial is None else denial, results=results)


def _merged(results: dict[str, Decision], phase: Phase) -> Decision:
    """Merge decisions of which none blocks into one."""
    metadata: dict[str, Any] = {}
    for decision in results.values():
        metadata.update(decision.metadata)
    context = tuple(text for decision in results.values() for text in decision.context)
    enforcer = next((d for d in results.values() if d.enforced and not d.allow), None)
    if enforcer is not None:  # the text that replaces the answer comes from this hook alone
        metadata.pop("replacement", None)
        metadata.update(enforcer.metadata)
        return evolve(enforcer, metadata=metadata, context=context, payload=None)
    says = next((d for d in results.values() if d.reason), None)
    return Decision(
        allow=True,
        reason="" if says is None else says.reason,
        metadata=metadata,
        hook="" if says is None else says.hook,
        context=context,
        phase=phase,
    )


_desks: PerLoop[_Desk] = PerLoop(_Desk)
"""The desk of each event loop; the end of the loop kills its observers."""
