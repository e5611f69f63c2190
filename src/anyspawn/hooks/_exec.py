"""Hooks that are programs: one process a call, a JSON object in, a verdict out. Every failure is a
denial.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import anyio
import attrs
from attrs import field, frozen

from anyspawn._env import Env, check_text
from anyspawn._masks import Masks
from anyspawn._model import Command, Completed, Sandbox
from anyspawn._registry import nearest
from anyspawn._telemetry import tell_not_asked, warn, watch_hook
from anyspawn.exceptions import AnyspawnError, ConfigError, ExitError
from anyspawn.hooks._agents import Agent, Outcome, Place, Verdict
from anyspawn.hooks._checks import (
    flag,
    one_of,
    positive,
    seconds,
    text,
    to_args,
    to_env,
    to_sandbox,
)
from anyspawn.hooks._claude import BLOCKED
from anyspawn.hooks._conditions import condition
from anyspawn.hooks._decision import Decision
from anyspawn.hooks._matchers import matcher
from anyspawn.hooks._payloads import to_wire
from anyspawn.hooks._phases import AFTER, KINDS, PHASES, Phase, SessionPhase, check_phase, parts
from anyspawn.hooks._protocols import AGENTS, OnFailure, ProtocolName
from anyspawn.hooks._rewrite import changed_places, rewritten
from anyspawn.hooks._server import CallError, Served, Servers
from anyspawn.hooks._wire import (
    WireError,
    check_whole,
    decision_of,
    decode_decision,
    encode,
    envelope,
)
from anyspawn.sandboxes.bubblewrap import Bubblewrap
from anyspawn.sandboxes.direct import Direct

__all__ = [
    "Asking",
    "ExecAgentHook",
    "ExecEvalHook",
    "ExecHook",
    "ExecProviderHook",
    "ExecSessionHook",
    "ExecToolHook",
    "HookCall",
    "HookError",
    "Told",
]

_REASON_LIMIT = 4000
_PLACES = 32
BACKSTOP = 15.0
"""Seconds beyond the timeout after which a hook fails even if its sandbox does not return."""

_T = TypeVar("_T")


class HookError(AnyspawnError):
    """A session hook in filter mode failed; the message names the hook and says how."""


def _to_phases(value: Iterable[Phase] | None) -> tuple[Phase, ...]:
    if isinstance(value, (str, bytes)):
        raise ConfigError(f"phases must be a list such as ['before_call'], not {value!r}")
    phases = () if value is None else tuple(value)
    if value is not None and not phases:
        raise ConfigError(
            f"phases is empty, so that the hook would never run (known: {', '.join(PHASES)})"
        )
    return phases


def _to_eval_timeout(value: float | None) -> float:
    return value if value and value > 0 else 5.0


@frozen(kw_only=True)
class ExecHook(Served):
    """A program that decides at certain phases whether the work can continue.

    Args:
        name: The hook's name in reasons, results and logs.
        command: The program. Without a slash it is looked up on ``PATH``.
        args: Its arguments.
        env: Variables for it, as for `anyspawn.Command`.
        timeout: Seconds for one call, including the wait for a slot. ``None``, 0 or negative: the
            sandbox's ``default_timeout``, 10 unless it was changed; 5 for eval hooks.
        phases: The phases at which it is asked. Default: all phases of its kind. At others it
            allows, and nothing is started.
        mode: ``"filter"`` (default): its decision counts, and a failure denies. ``"observe"``: it
            gets the payload, its answer is ignored, and its failures do not reach the caller.
        sandbox: Where it runs. Default: `anyspawn.Direct`, on this host, as this user. A filter
            refuses a container or a pod that is shared with others, unless it is ``trusted``.
        on_failure: The decision if a filter fails: ``"deny"`` (default); ``"allow"``, with a
            warning in the log; or the one that the tool of its protocol would take, such as
            ``"as_claude"``.
        protocol: ``"exec"`` (default), or that of the agent tool for which the program was written:
            ``"claude"`` (Claude Code), ``"codex"``, ``"gemini"``, ``"cursor"``, ``"copilot"``.
        matcher: With the protocol of an agent tool, a matcher in that tool's syntax, such as
            ``Edit|Write``; ``*`` (default) matches everything.
        output_limit: The largest answer, in bytes; more is a failure. Default 1 MiB.
        runtime: ``"exec"`` (default): a process for each call. ``"server"``: one process that keeps
            running and answers JSON-RPC 2.0 requests, each on one line. The first call starts it;
            `aclose`, the end of the `HookRunner` or the end of the event loop stops it.
        rewrites: Whether it can change the payload. Default: a change is a denial.
        sequential: Whether later hooks are asked only after this filter has allowed the call, so
            that a denial keeps the payload from them. Default: all are asked at once.
        names: ``"pascal"`` (default): the names inside requests and responses are the reference's,
            such as ``Name``. ``"snake"``: both ``Name`` and ``name``.
        when: With the claude protocol, Claude Code's ``if``: a permission rule such as ``Bash(git
            *)``; the hook is asked only about calls that match. Default: none.
        project: With the protocol of an agent tool, the project's folder as the hook sees it: its
            working directory, and the value of its variables. Default: where programs start in the
            sandbox.

    Raises:
        ConfigError, TypeError, ValueError: An argument is wrong; the message names it.
    """

    known_phases: ClassVar[tuple[str, ...]] = tuple(PHASES)

    name: str = field(validator=text)
    command: str
    args: tuple[str, ...] = field(default=(), converter=to_args)
    env: Env = field(default=Env(), converter=to_env)
    timeout: float | None = field(default=None, validator=seconds)
    phases: tuple[Phase, ...] = field(default=None, converter=_to_phases)
    mode: Literal["filter", "observe"] = field(
        default="filter", validator=one_of("filter", "observe")
    )
    sandbox: Sandbox = field(default=None, converter=to_sandbox)
    on_failure: OnFailure = field(default="deny", validator=one_of(*get_args(OnFailure)))
    protocol: ProtocolName = field(default="exec", validator=one_of(*get_args(ProtocolName)))
    matcher: str = "*"
    output_limit: int = field(default=2**20, validator=positive)
    runtime: Literal["exec", "server"] = field(default="exec", validator=one_of("exec", "server"))
    rewrites: bool = field(default=False, validator=flag)
    sequential: bool = field(default=False, validator=flag)
    names: Literal["pascal", "snake"] = field(default="pascal", validator=one_of("pascal", "snake"))
    when: str = ""
    project: str | None = None
    _servers: Servers = field(init=False, factory=Servers, repr=False, eq=False)
    _matchers: Mapping[str, Callable[[str], bool]] = field(init=False, repr=False, eq=False)
    _condition: Callable[[Mapping[str, Any], str], bool] | None = field(
        init=False, default=None, repr=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        agent = self._agent
        possible: list[Any] = [
            phase
            for phase in self.known_phases
            if (PHASES[phase] != "agent" if agent is None else phase in agent.events)
        ]
        if not possible:
            raise ConfigError(
                f"protocol {self.protocol!r} has no event for {PHASES[self.known_phases[0]]} hooks"
            )
        phases = self.phases or tuple(possible)
        for phase in phases:
            if phase not in possible:
                hint = nearest(str(phase), possible)
                raise ConfigError(
                    f"phases: {phase!r} is not a phase of this hook{hint} (known: {', '.join(possible)})"
                )
        object.__setattr__(self, "phases", phases)
        object.__setattr__(self, "_matchers", self._made_matchers(agent))
        if self.when:
            if self.protocol != "claude":
                raise ConfigError("when needs protocol 'claude'; leave one of them out")
            object.__setattr__(self, "_condition", condition(self.when))
        if self.on_failure.startswith("as_") and self.on_failure != f"as_{self.protocol}":
            raise ConfigError(
                f"on_failure {self.on_failure!r} is not of protocol {self.protocol!r}"
            )
        if not isinstance(self.sandbox, Sandbox):
            raise ConfigError(
                f"sandbox must have a name and an async spawn(command), as {self.sandbox!r} has not"
            )
        if self.mode == "filter" and getattr(self.sandbox, "shared", None) == "untrusted":
            raise ConfigError(
                f"sandbox {self.sandbox.name!r} is shared: another program of the same user there can "
                "forge a verdict; use a sandbox of its own for each call, such as bubblewrap or "
                "docker_run, or set shared to 'trusted' if nothing there would"
            )
        self._check_exec_alone(agent)
        if self.runtime == "server" and not hasattr(self.sandbox, "open_process"):
            raise ConfigError(
                f"runtime 'server' needs a sandbox that can open a process, as {self.sandbox!r} cannot"
            )
        if self.rewrites and (self.mode == "observe" or not set(phases) & self._judging()):
            raise ConfigError(
                "rewrites needs a filter whose answer is read: a provider or tool hook, or one with "
                "the protocol of an agent tool"
            )
        if self.sequential and self.mode == "observe":
            raise ConfigError("sequential needs a filter; no hook waits for an observer")
        for value, name in (
            (self.command, "command"),
            *((arg, f"args[{i}]") for i, arg in enumerate(self.args)),
        ):
            check_text(value, name)
        if not self.command:
            raise ConfigError("command is empty; it must name the program to run")
        self._asking(b"", self.env)

    def _check_exec_alone(self, agent: Agent | None) -> None:
        """Refuse arguments of another protocol than the hook's."""
        if agent is None:
            if self.project is not None:
                raise ConfigError("project is of the protocols of agent tools; set protocol")
            return
        if self.runtime == "server":
            raise ConfigError(
                "runtime 'server' goes with protocol 'exec' alone; leave one of them out"
            )
        if self.names != "pascal":
            raise ConfigError("names goes with protocol 'exec' alone; leave one of them out")

    def _made_matchers(self, agent: Agent | None) -> dict[str, Callable[[str], bool]]:
        """Return the matchers, by phase."""
        if not isinstance(self.matcher, str):
            raise ConfigError(f"matcher must be a text such as 'Edit|Write', not {self.matcher!r}")
        if self.matcher in {"", "*"}:
            return {}
        if agent is None:
            raise ConfigError(
                "matcher is of the protocols of agent tools; set protocol to 'claude', say, or "
                "leave it out"
            )
        made: dict[str, Callable[[str], bool]] = {}
        for phase in self.phases:
            event = agent.events[phase]
            if event.subject:
                style = "exact" if event.subject.startswith("=") else agent.style
                tools = event.subject in {"tool_name", "toolName"}
                made[phase] = matcher(self.matcher, style, tools=tools)
        if not made:
            raise ConfigError(
                f"matcher: {agent.title} has none for {', '.join(self.phases)}; leave it out"
            )
        return made

    def _judging(self) -> set[str]:
        """Return the phases at which its answer is read."""
        told_only = () if self._agent else (*KINDS["session"], *KINDS["eval"])
        return {phase for phase in self.phases if phase not in told_only}

    @property
    def _agent(self) -> Agent | None:
        return AGENTS.get(self.protocol)

    @property
    def kind(self) -> str:
        """Which kind of hook this is (``provider``, ``tool``, ``session`` or ``eval``)."""
        return PHASES[self.phases[0]]

    async def run(
        self, phase: Phase, payload: Any, *, places: anyio.CapacityLimiter | None = None
    ) -> Decision:
        """Ask the program; return its decision, or a denial if it fails.

        Args:
            phase: The phase. At a phase that is not the hook's it allows, and nothing is started.
            payload: The request, event or result: any JSON value, or one of the payload classes.
                For a phase with both a request and a response: a tuple of the two.
            places: A limiter whose slot the call needs before it starts; the wait counts towards
                the timeout.

        Raises:
            ValueError, TypeError: The phase is unknown, or its payload is not complete.
        """
        return await self.asking(Told.of(phase, payload))(places)

    async def __call__(self, phase: Phase, payload: Any) -> Decision:
        """Ask the program, as `run` does."""
        return await self.run(phase, payload)

    def asking(self, told: Told) -> Asking:
        """Return a call that asks the program about the payload as it is now; later changes to the
        payload have no effect.
        """
        if told.phase not in self.phases:
            return Asking(self._answer, told.phase, None)
        try:
            return Asking(self._answer, told.phase, self._question(told.phase, told))
        except _NoVerdictError as failure:
            return Asking(self._answer, told.phase, failure)

    async def _answer(
        self,
        phase: str,
        question: _Question | _NoVerdictError | None,
        places: anyio.CapacityLimiter | None,
    ) -> Decision:
        if question is None:
            self.tell_not_asked(phase, self.why_not(phase))
            return Decision(allow=True, phase=phase)
        with watch_hook(self.name, phase, self.mode, self.sandbox.name) as watch:
            try:
                if isinstance(question, _NoVerdictError):
                    raise question
                decision = await self._ask(question, places)
            except _NoVerdictError as failure:
                said = self._masked(f"hook {self.name!r} {failure}")
                watch.failed(failure.kind, said)
                decision = self._failed(phase, said, failure)
                watch.decided(allow=decision.allow, reason="", changed=())
            else:
                changed = self._changed(question, decision)
                watch.decided(allow=decision.allow, reason=decision.reason, changed=changed)
        return decision

    def _changed(self, question: _Question, decision: Decision) -> Sequence[str]:
        """Return the names of the members of the payload that were rewritten, without values."""
        if decision.payload is None:
            return ()
        part = "response" if question.phase in AFTER else next(iter(question.told))
        before, after = to_wire(question.told[part]), to_wire(decision.payload)
        masks = Masks(question.env)
        return [masks.cut(place) for place in islice(changed_places(before, after), _PLACES)]

    def why_not(self, phase: str) -> str:
        """Return why a hook is not asked at a phase."""
        if phase in self.phases:
            return "its matcher leaves this payload out"
        return f"it is asked at {', '.join(self.phases)}"

    def tell_not_asked(self, phase: str, why: str) -> None:
        """Record in the telemetry that the hook was not asked."""
        tell_not_asked(self.name, phase, self.mode, self.sandbox.name, why)

    def _question(self, phase: str, told: Told) -> _Question | None:
        """Return the question for the program; ``None`` if its matcher does not match.

        Raises:
            _NoVerdictError: The payload cannot be encoded.
        """
        env, agent = self.env.look_up(os.environ), self._agent
        kept = {} if self.mode == "observe" else told.parts  # needed only for a verdict
        try:
            if agent is None:
                snake = self.names == "snake"
                _, stdin = told.encoded(snake, lambda: envelope(phase, told.parts, snake=snake))
                return _Question(phase, self._asking(stdin, env), env, kept, {})
            event, folder = agent.events[phase], self._folder()
            message, stdin = told.encoded(
                (self.protocol, folder),
                lambda: agent.message(event, told.parts, Place(folder, time.time())),
            )
            if phase in self._matchers:
                subject = message.get(event.subject.removeprefix("="))
                # A payload without a name to match is asked about.
                if isinstance(subject, str) and not self._matchers[phase](subject):
                    return None
            if self._condition is not None and not self._condition(message, folder):
                return None
            seen = Env({**dict.fromkeys(agent.variables, folder), **env})
            return _Question(phase, self._asking(stdin, seen), env, kept, message if kept else {})
        except (
            Exception
        ) as exc:  # anything can be wrong with a payload, and the working directory can be gone
            what = (
                "it is nested too deeply, or in a circle"
                if isinstance(exc, RecursionError)
                else str(exc)
            )
            raise _NoVerdictError(f"was not asked: {what}", exc) from None

    def _folder(self) -> str:
        """Return the project's folder, as the hook sees it."""
        if self.project is not None:
            return self.project
        if isinstance(self.sandbox, Direct):
            return os.getcwd()
        start = "/tmp" if isinstance(self.sandbox, Bubblewrap) else "/"
        return getattr(self.sandbox, "workdir", None) or start

    async def _ask(self, question: _Question, places: anyio.CapacityLimiter | None) -> Decision:
        """Return the hook's verdict. For a hook whose answer does not count, it allows if the hook
        succeeded.

        Raises:
            _NoVerdictError: The hook failed.
        """
        if self.runtime == "server":
            return await self._ask_server(question, places)
        completed = await self._spawn(question.command, places)
        error, code, agent = completed.error, completed.returncode, self._agent
        blocked = (
            agent is not None
            and code == BLOCKED
            and (error is None or isinstance(error, ExitError))
        )
        if error is not None and not blocked:
            raise _no_verdict(f"failed: {error.message}", error, question, completed)
        if code != 0 and not blocked:
            what = f"failed: it exited with status {code}"
            raise _no_verdict(what, ExitError(), question, completed)
        if self.mode == "observe" or question.phase not in self._judging():
            return Decision(allow=True, hook=self.name, phase=question.phase)
        try:
            check_whole(completed)
            if agent is None:
                return self._settled(question, _verdict_of(decode_decision(completed.stdout)))
            outcome = Outcome(status=code or 0, stdout=completed.stdout, stderr=completed.stderr)
            event = agent.events[question.phase]
            return self._settled(question, agent.judge(event, question.message, outcome))
        except WireError as exc:
            raise _no_verdict(f"failed: {exc}", exc, question, completed) from None

    def _settled(self, question: _Question, verdict: Verdict) -> Decision:
        """Return the decision of a verdict.

        Raises:
            WireError: The changed payload is not valid.
        """
        masks, allow, reason, payload = Masks(question.env), verdict.allow, verdict.reason, None
        if allow and verdict.changed is not None:
            part, value = verdict.changed
            payload = rewritten(
                question.phase, question.told, part, value, snake=self.names == "snake"
            )
        if payload is not None and not self.rewrites:
            allow, payload = False, None
            reason = (
                f"hook {self.name!r} allows only a changed payload, and is not declared to change "
                "it; set rewrites to accept that"
            )
        return Decision(
            allow,
            reason=masks.cut(reason)[:_REASON_LIMIT],
            metadata=masks.inside(dict(verdict.metadata)),
            enforced=verdict.enforced,
            hook=self.name,
            payload=payload,
            replacement=masks.inside(verdict.replacement),
            context=[masks.whole(text) for text in verdict.context],
            phase=question.phase,
        )

    def _asking(self, stdin: bytes, env: Env) -> Command:
        return Command(
            [self.command, *self.args],
            stdin=stdin,
            env=env,
            cwd=self.project,
            timeout=self._seconds(),
            output_limit=self.output_limit,
        )

    async def _ask_server(
        self, question: _Question, places: anyio.CapacityLimiter | None
    ) -> Decision:
        server = self._servers.get(self.name, self.sandbox, self.output_limit)
        began, timeout = anyio.current_time(), self._seconds()
        command = Command([self.command, *self.args], env=question.env, timeout=timeout)

        async def ask(_: float) -> dict[str, Any]:
            params = question.command.stdin or b"null"
            return await server.call(command, params, deadline=began + timeout, timeout=timeout)

        try:
            answer = await self._in_turn(ask, timeout, places)
            if self.mode == "observe" or question.phase not in self._judging():
                return Decision(allow=True, hook=self.name, phase=question.phase)
            return self._settled(question, _verdict_of(decision_of(answer["result"])))
        except CallError as exc:
            raise _no_verdict(str(exc), exc.cause, question, exc.completed) from None
        except WireError as exc:
            raise _NoVerdictError(f"failed: {exc}", exc) from None

    async def _spawn(self, command: Command, places: anyio.CapacityLimiter | None) -> Completed:
        timeout = self._seconds()

        async def ask(left: float) -> Completed:
            return await self.sandbox.spawn(
                attrs.evolve(command, timeout=left) if places is not None else command
            )

        try:
            with anyio.fail_after(timeout + BACKSTOP):
                completed = await self._in_turn(ask, timeout, places)
            if not isinstance(completed, Completed):
                raise TypeError(f"the sandbox gave {type(completed).__name__}, not a Completed")
        except _NoVerdictError:
            raise
        except Exception as exc:  # a third-party sandbox, or one that refuses this command
            raise _NoVerdictError(f"failed: {type(exc).__name__}: {exc}", exc) from exc
        return completed

    async def _in_turn(
        self,
        ask: Callable[[float], Awaitable[_T]],
        timeout: float,
        places: anyio.CapacityLimiter | None,
    ) -> _T:
        """Ask when a slot is free, in the rest of the timeout."""
        if places is None:
            return await ask(timeout)
        began, place = anyio.current_time(), object()
        with anyio.CancelScope(deadline=began + timeout) as scope:
            await places.acquire_on_behalf_of(place)
        if scope.cancelled_caught:
            raise _NoVerdictError(
                f"was not asked: no slot was free within {timeout:g} s", TimeoutError()
            )
        try:
            # In whole milliseconds, as in messages.
            left = max(round(began + timeout - anyio.current_time(), 3), 0.001)
            return await ask(left)
        finally:
            places.release_on_behalf_of(place)

    def _masked(self, text: str) -> str:
        return Masks(self.env.look_up(os.environ)).cut(text)

    def _failed(self, phase: str, said: str, failure: _NoVerdictError) -> Decision:
        reason = said + (f"; stderr: {failure.stderr}" if failure.stderr else "")
        if self.mode == "observe":
            warn("anyspawn.hooks", "%s (observe: the work goes on)", said)
            return Decision(allow=True, hook=self.name, phase=phase)
        if self._goes_on(phase, failure):
            warn("anyspawn.hooks", "%s (on_failure=%s: the work goes on)", said, self.on_failure)
            return Decision(allow=True, reason=reason, hook=self.name, phase=phase)
        return Decision(allow=False, reason=reason, hook=self.name, phase=phase)

    def _goes_on(self, phase: str, failure: _NoVerdictError) -> bool:
        """Whether the work continues after a failure."""
        if self.on_failure in {"deny", "allow"}:
            return self.on_failure == "allow"
        agent = AGENTS[self.protocol]
        unreadable = failure.kind == WireError.__name__
        return not agent.fails_closed(agent.events[phase], unreadable=unreadable)


@frozen(eq=False)
class Told:
    """A payload for all hooks of one phase: encoded once for each protocol.

    Args:
        phase: The phase. parts: The payload's parts. seen: A list that collects what each hook did,
            if any.
    """

    phase: Phase
    parts: dict[str, Any]
    seen: list[HookCall] | None = None
    _encoded: dict[Any, tuple[Any, bytes]] = field(init=False, factory=dict[Any, Any])

    @classmethod
    def of(cls, phase: Phase, payload: Any, seen: list[HookCall] | None = None) -> Self:
        """Return the `Told` of a payload.

        Raises:
            ValueError, TypeError: The phase is unknown, or its payload is not complete.
        """
        return cls(phase, parts(check_phase(phase), payload), seen)

    def encoded(self, form: Any, make: Callable[[], Any]) -> tuple[Any, bytes]:
        """Return a message in one form, and its bytes.

        Args:
            form: The key of the form.
            make: Makes the message, if it is not made yet.
        """
        if form not in self._encoded:
            message = make()
            self._encoded[form] = (message, encode(message))
        return self._encoded[form]


@frozen(kw_only=True)
class HookCall:
    """What one hook did at one phase.

    Args:
        hook: Its name.
        asked: Whether it was asked; its matcher or its condition can exclude a payload.
        seconds: How long that took, including the wait for a slot.
        payload: The payload's parts that it got, as they were then.
        decision: Its decision; ``None`` if it was killed first, because another hook had denied.
    """

    hook: str
    asked: bool
    seconds: float
    payload: Mapping[str, Any]
    decision: Decision | None


@frozen(eq=False)
class Asking:
    """A prepared call of a hook.

    Args:
        answer: Asks the hook.
        phase: The moment.
        question: The question; the error if there is none; ``None`` if the hook is not asked.
    """

    _answer: Callable[..., Awaitable[Decision]]
    phase: str
    question: _Question | _NoVerdictError | None

    @property
    def stdin(self) -> bytes:
        """The payload's parts that the program gets."""
        return (self.question.command.stdin or b"") if isinstance(self.question, _Question) else b""

    async def __call__(self, places: anyio.CapacityLimiter | None) -> Decision:
        return await self._answer(self.phase, self.question, places)


@frozen
class _Question:
    """A question to a hook.

    Args:
        phase: The moment.
        command: The command.
        env: The hook's own variables.
        told: The payload's parts.
        message: The message, with the protocol of an agent tool.
    """

    phase: str
    command: Command
    env: Env
    told: Mapping[str, Any]
    message: dict[str, Any]


class _NoVerdictError(Exception):
    """The hook gave no verdict; the message says why, without its name.

    Attributes:
        kind: The name of the error behind it.
        stderr: The end of the hook's stderr, for the reason; not for logs, because it can contain
            anything.
    """

    def __init__(self, what: str, cause: Exception, stderr: str = "") -> None:
        super().__init__(what)
        self.kind = type(cause).__name__
        self.stderr = stderr


def _no_verdict(
    what: str, cause: Exception, question: _Question, completed: Completed | None
) -> _NoVerdictError:
    written = b"" if completed is None else completed.stderr
    return _NoVerdictError(what, cause, Masks(question.env).stderr(written) if written else "")


def _verdict_of(decision: Decision) -> Verdict:
    """Return a verdict of the exec protocol."""
    return Verdict(
        allow=decision.allow,
        reason=decision.reason,
        metadata=decision.metadata,
        enforced=decision.enforced,
        replacement=decision.replacement,
        changed=None if decision.payload is None else ("payload", decision.payload),
    )


@frozen(kw_only=True)
class ExecProviderHook(ExecHook):
    """A hook around the calls of a language model. Takes the arguments of `ExecHook`."""

    known_phases: ClassVar[tuple[str, ...]] = KINDS["provider"]

    async def before_call(self, request: Any) -> Decision:
        """Ask whether the call of the model can go ahead."""
        return await self.run("before_call", request)

    async def after_call(self, request: Any, response: Any) -> Decision:
        """Ask whether the model's answer can be used."""
        return await self.run("after_call", (request, response))


@frozen(kw_only=True)
class ExecToolHook(ExecHook):
    """A hook around the calls of a tool. Takes the arguments of `ExecHook`."""

    known_phases: ClassVar[tuple[str, ...]] = KINDS["tool"]

    async def before_execution(self, request: Any) -> Decision:
        """Ask whether the call of the tool can go ahead."""
        return await self.run("before_execution", request)

    async def after_execution(self, request: Any, response: Any) -> Decision:
        """Ask whether the tool's answer can be used."""
        return await self.run("after_execution", (request, response))


@frozen(kw_only=True)
class ExecSessionHook(ExecHook):
    """A hook for the start, the updates and the end of a session. Takes the arguments of
    `ExecHook`.

    With the exec protocol its answer is not read: exit status 0 is enough.
    """

    known_phases: ClassVar[tuple[str, ...]] = KINDS["session"]

    async def on_session_start(self, event: Any) -> Decision:
        """Report the start of a session; return the hook's decision, for example with context for
        the model.

        Raises:
            HookError: The hook is a filter, and failed or denied.
        """
        return await self._tell("session_start", event)

    async def on_session_update(self, event: Any) -> Decision:
        """Report an update of a session. Returns and raises as `on_session_start`."""
        return await self._tell("session_update", event)

    async def on_session_end(self, event: Any) -> Decision:
        """Report the end of a session. Returns and raises as `on_session_start`."""
        return await self._tell("session_end", event)

    async def _tell(self, phase: SessionPhase, event: Any) -> Decision:
        decision = await self.run(phase, event)
        if decision.blocks:
            raise HookError(decision.reason)
        return decision


@frozen(kw_only=True)
class ExecAgentHook(ExecHook):
    """A hook for events of an agent tool that do not match another phase, such as ``Stop``. Takes
    the arguments of `ExecHook`; ``protocol`` must be a tool's.

    Ask it with `run`, and the event's name as the phase. The payload is the event's fields in the
    tool's form; missing fields that all events have are added.
    """

    known_phases: ClassVar[tuple[str, ...]] = KINDS["agent"]


@frozen(kw_only=True)
class ExecEvalHook(ExecHook):
    """A hook that gets the results of evaluations. Takes the arguments of `ExecHook`, and always
    observes.

    It reads only the result, without an envelope.
    """

    known_phases: ClassVar[tuple[str, ...]] = KINDS["eval"]

    timeout: float | None = field(default=None, converter=_to_eval_timeout, validator=seconds)
    mode: Literal["filter", "observe"] = field(default="observe", validator=one_of("observe"))

    async def on_eval_result(self, result: Any) -> None:
        """Report a result. Failures are logged, not raised."""
        await self.run("eval_result", result)
