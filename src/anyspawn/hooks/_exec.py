"""Hooks that are programs: one process a call, a JSON object in, a verdict out. Whatever goes wrong
is a denial.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

import anyio
import attrs
from attrs import Attribute, field, frozen

from anyspawn._env import Env, check_text
from anyspawn._model import Command, Completed, Sandbox
from anyspawn._registry import nearest
from anyspawn._telemetry import warn, watch_hook
from anyspawn.exceptions import AnyspawnError, ConfigError, ExitError
from anyspawn.hooks import _claude
from anyspawn.hooks._decision import Decision
from anyspawn.hooks._phases import KINDS, PHASES, check_phase, parts
from anyspawn.hooks._server import CallError, Server
from anyspawn.hooks._wire import WireError, decision_of, decode_decision, encode, envelope
from anyspawn.sandboxes.direct import Direct

__all__ = [
    "ExecEvalHook",
    "ExecHook",
    "ExecProviderHook",
    "ExecSessionHook",
    "ExecToolHook",
    "HookError",
]

_STDERR_SHOWN = 400
_REASON_LIMIT = 4000
_BACKSTOP = 15.0
"""Seconds beyond its timeout after which even a sandbox that does not return is given up."""
_HIDDEN = "***"
_SECRET_NAME = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY", re.IGNORECASE)
_SHORT = 6
_PREFIX = 4

_T = TypeVar("_T")


class HookError(AnyspawnError):
    """A session hook in filter mode failed; the message names it and says in which way."""


def _to_phases(value: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise ConfigError(f"phases must be a list such as ['before_call'], not {value!r}")
    phases = () if value is None else tuple(value)
    if value is not None and not phases:
        raise ConfigError(
            f"phases is empty, so that the hook would never run (known: {', '.join(PHASES)})"
        )
    return phases


def _to_args(value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise ConfigError(f"args must be a list of texts, not {value!r}")
    return tuple(value)


def _to_env(value: Mapping[str, str | None] | Iterable[str]) -> Env:
    return value if isinstance(value, Env) else Env(value)


def _to_sandbox(value: Sandbox | None) -> Sandbox:
    return Direct() if value is None else value


def _to_eval_timeout(value: float | None) -> float:
    return value if value and value > 0 else 5.0


def _one_of(*known: str) -> Callable[[object, Attribute[Any], Any], None]:
    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if value not in known:
            hint = nearest(str(value), list(known))
            raise ConfigError(
                f"{attribute.name} must be one of {', '.join(known)}, not {value!r}{hint}"
            )

    return check


def _name(_: object, __: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"name must be a text that is not empty, not {value!r}")


def _positive(_: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{attribute.name} must be a whole number of bytes above 0, not {value!r}"
        )


@frozen(kw_only=True)
class ExecHook:
    """A program that is asked at certain moments whether the work may go on.

    Args:
        name: What the hook is called in reasons, results and logs.
        command: The program; looked up on ``PATH`` where it has no slash.
        args: Its arguments.
        env: Variables for it, as for `anyspawn.Command`.
        timeout: Seconds for one call, waiting for a free place included. ``None``, 0 or negative:
            the sandbox's ``default_timeout``, which is 10 unless given; 5 for eval hooks.
        phases: When it is asked. Default: at all phases of its kind. At others it allows, and
            nothing is started.
        mode: ``"filter"`` (default): its verdict counts, and a failure denies. ``"observe"``: it is
            told, whatever it answers is thrown away, and nothing that goes wrong reaches the
            caller.
        sandbox: Where it runs. Default: `anyspawn.Direct`, on this host, as this user. A filter
            refuses a container or a pod that is shared with others, unless it is ``trusted``.
        on_failure: What a failure of a filter means: ``"deny"`` (default), or ``"allow"``, with a
            warning in the log.
        protocol: ``"exec"`` (default), or ``"claude"`` for programs written as command hooks of
            Claude Code.
        matcher: With the claude protocol, which tools it is asked about: ``Edit|Write``, a regular
            expression, or ``*`` (default) for all.
        output_limit: Bytes that its answer may have; more is a failure. Default 1 MiB.
        runtime: ``"exec"`` (default): a process for each call. ``"server"``: one process that stays
            and answers by JSON-RPC 2.0, a line each. The first call starts it; it ends with
            `aclose`, with the `HookRunner`, or with the event loop.

    Raises:
        ConfigError, TypeError, ValueError: An argument is wrong; the message names it.
    """

    known_phases: ClassVar[tuple[str, ...]] = tuple(PHASES)

    name: str = field(validator=_name)
    command: str
    args: tuple[str, ...] = field(default=(), converter=_to_args)
    env: Env = field(default=Env(), converter=_to_env)
    timeout: float | None = None
    phases: tuple[str, ...] = field(default=None, converter=_to_phases)
    mode: Literal["filter", "observe"] = field(
        default="filter", validator=_one_of("filter", "observe")
    )
    sandbox: Sandbox = field(default=None, converter=_to_sandbox)
    on_failure: Literal["deny", "allow"] = field(default="deny", validator=_one_of("deny", "allow"))
    protocol: Literal["exec", "claude"] = field(default="exec", validator=_one_of("exec", "claude"))
    matcher: str = "*"
    output_limit: int = field(default=2**20, validator=_positive)
    runtime: Literal["exec", "server"] = field(default="exec", validator=_one_of("exec", "server"))
    _servers: WeakKeyDictionary[Any, Server] = field(
        init=False, factory=WeakKeyDictionary, repr=False, eq=False
    )
    _matches: Callable[[str], bool] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        possible = [
            phase
            for phase in self.known_phases
            if self.protocol == "exec" or phase in _claude.EVENTS
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
                    f"phases: {phase!r} is no phase of this hook{hint} (known: {', '.join(possible)})"
                )
        object.__setattr__(self, "phases", phases)
        if not isinstance(self.matcher, str):
            raise ConfigError(f"matcher must be a text such as 'Edit|Write', not {self.matcher!r}")
        if self.matcher != "*" and self.protocol != "claude":
            raise ConfigError(
                "matcher is of the claude protocol; set protocol to 'claude', or leave it out"
            )
        object.__setattr__(self, "_matches", _claude.matcher(self.matcher))
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
        if self.runtime == "server":
            if self.protocol != "exec":
                raise ConfigError(
                    "runtime 'server' goes with protocol 'exec' alone; leave one of them out"
                )
            if not hasattr(self.sandbox, "open"):
                raise ConfigError(
                    f"runtime 'server' needs a sandbox that can open a process, as {self.sandbox!r} cannot"
                )
        for value, name in (
            (self.command, "command"),
            *((arg, f"args[{i}]") for i, arg in enumerate(self.args)),
        ):
            check_text(value, name)
        if not self.command:
            raise ConfigError("command is empty; it must name the program to run")
        self._asking(b"", self.env)

    @property
    def kind(self) -> str:
        """Which kind of hook this is (``provider``, ``tool``, ``session`` or ``eval``)."""
        return PHASES[self.phases[0]]

    async def run(
        self, phase: str, payload: Any, *, places: anyio.CapacityLimiter | None = None
    ) -> Decision:
        """Ask the program; return its decision, or the denial that its failure is.

        Args:
            phase: The moment. One that is not the hook's allows, and nothing is started.
            payload: The request, event or result: any JSON value, or one of the payload classes.
                For a phase that has
                both a request and a response: a tuple of the two.
            places: A limiter to wait for before anything starts; the wait counts for the timeout.

        Raises:
            ValueError, TypeError: There is no such phase, or its payload is not complete.
        """
        return await self.asking(phase, payload)(places)

    def asking(
        self, phase: str, payload: Any
    ) -> Callable[[anyio.CapacityLimiter | None], Awaitable[Decision]]:
        """Return what asks the program about the payload as it is now, whatever becomes of that
        until then.
        """
        told = parts(check_phase(phase), payload)
        question: _Question | _NoVerdictError | None = None
        if phase in self.phases:
            try:
                question = self._question(phase, told)
            except _NoVerdictError as failure:
                question = failure

        async def ask(places: anyio.CapacityLimiter | None) -> Decision:
            if question is None:
                return Decision(allow=True)
            with watch_hook(self.name, phase, self.mode) as watch:
                try:
                    if isinstance(question, _NoVerdictError):
                        raise question
                    decision = await self._ask(phase, question, places)
                except _NoVerdictError as failure:
                    watch.failed(failure.kind, f"hook {self.name!r} {failure}")
                    decision = self._failed(failure)
                watch.decided(allow=decision.allow)
            return decision

        return ask

    def _question(self, phase: str, told: dict[str, Any]) -> _Question | None:
        """Return what to ask the program; ``None`` where its matcher leaves it out.

        Raises:
            _NoVerdictError: The payload cannot be told.
        """
        env = self.env.look_up(os.environ)
        try:
            if self.protocol == "exec":
                return _Question(self._asking(encode(envelope(phase, told)), env), env, None)
            cwd = os.getcwd()
            message = _claude.event(phase, told, cwd)
            if "tool_name" in message and not self._matches(message["tool_name"]):
                return None
            seen = Env({"CLAUDE_PROJECT_DIR": cwd, **env})
            return _Question(self._asking(encode(message), seen), env, message)
        except Exception as exc:  # whatever is wrong with a payload, and there may be no working directory any more
            what = (
                "it is nested too deeply, or in a circle"
                if isinstance(exc, RecursionError)
                else str(exc)
            )
            raise _NoVerdictError(f"was not asked: {what}", exc) from None

    async def _ask(
        self, phase: str, question: _Question, places: anyio.CapacityLimiter | None
    ) -> Decision:
        """Return the hook's verdict; where it only observes, or is only told something, that it
        ended well.

        Raises:
            _NoVerdictError: There is none.
        """
        if self.runtime == "server":
            return await self._ask_server(phase, question, places)
        completed = await self._spawn(question.command, places)
        error, code, message = completed.error, completed.returncode, question.message
        hidden = _Hidden(question.env)
        blocked = (
            message is not None
            and code == _claude.BLOCKED
            and (error is None or isinstance(error, ExitError))
        )
        if error is not None and not blocked:
            raise _NoVerdictError(f"failed: {error}", error, hidden.stderr(completed))
        if code != 0 and not blocked:
            raise _NoVerdictError(
                f"failed: it ended with status {code}", ExitError(), hidden.stderr(completed)
            )
        told_only = PHASES[phase] in {"session", "eval"} and message is None
        if told_only or self.mode == "observe":
            return Decision(allow=True, hook=self.name)
        try:
            if completed.output_incomplete or completed.stdout_total > len(completed.stdout):
                raise WireError(
                    "its answer may be cut off, as something that it started held its output open"
                )
            decision = (
                decode_decision(completed.stdout)
                if message is None
                else _claude.decide(message, completed)
            )
        except WireError as exc:
            raise _NoVerdictError(
                f"failed: {hidden.in_text(str(exc))}", exc, hidden.stderr(completed)
            ) from None
        reason = hidden.in_text(decision.reason) if blocked else decision.reason
        return attrs.evolve(decision, hook=self.name, reason=reason[:_REASON_LIMIT])

    def _asking(self, stdin: bytes, env: Env) -> Command:
        argv = [self.command, *self.args]
        return Command(
            argv, stdin=stdin, env=env, timeout=self.timeout, output_limit=self.output_limit
        )

    async def _ask_server(
        self, phase: str, question: _Question, places: anyio.CapacityLimiter | None
    ) -> Decision:
        hidden = _Hidden(question.env)
        loop = anyio.lowlevel.current_token().native_token
        if loop not in self._servers:
            self._servers[loop] = Server(self.name, self.sandbox, self.output_limit)
        server, began, timeout = self._servers[loop], anyio.current_time(), self._seconds()
        command = Command([self.command, *self.args], env=question.env, timeout=self.timeout)

        async def ask(_: float) -> dict[str, Any]:
            params = question.command.stdin or b"null"
            return await server.call(command, params, deadline=began + timeout, timeout=timeout)

        try:
            answer = await self._in_turn(ask, timeout, places)
            if PHASES[phase] in {"session", "eval"} or self.mode == "observe":
                return Decision(allow=True, hook=self.name)
            decision = decision_of(answer["result"])
        except CallError as exc:
            stderr = "" if exc.completed is None else hidden.stderr(exc.completed)
            raise _NoVerdictError(hidden.in_text(str(exc)), exc.cause, stderr) from None
        except WireError as exc:
            raise _NoVerdictError(f"failed: {hidden.in_text(str(exc))}", exc) from None
        return attrs.evolve(decision, hook=self.name, reason=decision.reason[:_REASON_LIMIT])

    async def aclose(self) -> None:
        """End the server that this event loop has of the hook, if it runs one. A later call starts
        another.
        """
        server = self._servers.get(anyio.lowlevel.current_token().native_token)
        if server is not None:
            await server.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _seconds(self) -> float:
        """Return how long a call may take."""
        timeout = self.timeout or 0
        return timeout if timeout > 0 else getattr(self.sandbox, "default_timeout", 10.0)

    async def _spawn(self, command: Command, places: anyio.CapacityLimiter | None) -> Completed:
        timeout = self._seconds()

        async def ask(left: float) -> Completed:
            return await self.sandbox.spawn(
                attrs.evolve(command, timeout=left) if places is not None else command
            )

        try:
            with anyio.fail_after(timeout + _BACKSTOP):
                completed = await self._in_turn(ask, timeout, places)
            if not isinstance(completed, Completed):
                raise TypeError(f"the sandbox gave {type(completed).__name__}, not a Completed")
        except _NoVerdictError:
            raise
        except (
            Exception
        ) as exc:  # a sandbox of somebody else's, or one that refuses this very command
            raise _NoVerdictError(f"failed: {type(exc).__name__}: {exc}", exc) from exc
        return completed

    async def _in_turn(
        self,
        ask: Callable[[float], Awaitable[_T]],
        timeout: float,
        places: anyio.CapacityLimiter | None,
    ) -> _T:
        """Ask when there is a place, in the time that is left then."""
        if places is None:
            return await ask(timeout)
        began, place = anyio.current_time(), object()
        with anyio.CancelScope(deadline=began + timeout) as scope:
            await places.acquire_on_behalf_of(place)
        if scope.cancelled_caught:
            raise _NoVerdictError(
                f"was not asked: no place was free within {timeout:g} s", TimeoutError()
            )
        try:
            left = max(began + timeout - anyio.current_time(), 0.001)
            return await ask(left)
        finally:
            places.release_on_behalf_of(place)

    def _failed(self, failure: _NoVerdictError) -> Decision:
        said = f"hook {self.name!r} {failure}"
        reason = said + (f"; stderr: {failure.stderr}" if failure.stderr else "")
        if self.mode == "observe":
            warn("anyspawn.hooks", "%s (observe: the work goes on)", said)
            return Decision(allow=True, hook=self.name)
        if self.on_failure == "allow":
            warn("anyspawn.hooks", "%s (on_failure=allow: the work goes on)", said)
            return Decision(allow=True, reason=reason, hook=self.name)
        return Decision(allow=False, reason=reason, hook=self.name)


@frozen
class _Question:
    """What a hook is asked: the command, the hook's own variables, and with the claude protocol the
    message.
    """

    command: Command
    env: Env
    message: dict[str, Any] | None


class _NoVerdictError(Exception):
    """The hook gave no verdict; says why, without its name.

    Attributes:
        kind: The name of the error behind it.
        stderr: The end of what the hook wrote to stderr, for a reason; not for logs, as it may be
            anything.
    """

    def __init__(self, what: str, cause: Exception, stderr: str = "") -> None:
        super().__init__(what)
        self.kind = type(cause).__name__
        self.stderr = stderr


class _Hidden:
    """Takes values of variables out of texts that a hook wrote; it may well print its own
    environment.

    Hidden are the values of the hook's ``env``, and of the host's variables whose names say that
    they are secret, also where a text was cut off within one.
    """

    def __init__(self, env: Env) -> None:
        host = {
            value
            for name, value in os.environ.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORT
        }
        values = {value for value in env.values() if value} | host
        self._values = sorted(
            values | {repr(value)[1:-1] for value in values}, key=len, reverse=True
        )

    def in_text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        for value in self._values:
            for size in range(min(len(value) - 1, len(text)), _PREFIX - 1, -1):
                if text.endswith(value[:size]):
                    return text[:-size] + _HIDDEN
        return text

    def stderr(self, completed: Completed) -> str:
        """Return the end of stderr, in one line."""
        text = self.in_text(completed.stderr.decode(errors="replace"))
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return "... " + text[-_STDERR_SHOWN:] if len(text) > _STDERR_SHOWN else text


@frozen(kw_only=True)
class ExecProviderHook(ExecHook):
    """A hook around the calls of a language model. Takes the arguments of `ExecHook`."""

    known_phases: ClassVar[tuple[str, ...]] = KINDS["provider"]

    async def before_call(self, request: Any) -> Decision:
        """Ask whether the model may be called."""
        return await self.run("before_call", request)

    async def after_call(self, request: Any, response: Any) -> Decision:
        """Ask whether the model's answer may be used."""
        return await self.run("after_call", (request, response))


@frozen(kw_only=True)
class ExecToolHook(ExecHook):
    """A hook around the calls of a tool. Takes the arguments of `ExecHook`."""

    known_phases: ClassVar[tuple[str, ...]] = KINDS["tool"]

    async def before_execution(self, request: Any) -> Decision:
        """Ask whether the tool may be called."""
        return await self.run("before_execution", request)

    async def after_execution(self, request: Any, response: Any) -> Decision:
        """Ask whether the tool's answer may be used."""
        return await self.run("after_execution", (request, response))


@frozen(kw_only=True)
class ExecSessionHook(ExecHook):
    """A hook that is told of a session's course. Takes the arguments of `ExecHook`.

    Its answer is not read: that it ends with status 0 is enough.
    """

    known_phases: ClassVar[tuple[str, ...]] = KINDS["session"]

    async def on_session_start(self, event: Any) -> None:
        """Tell that a session began.

        Raises:
            HookError: The hook is a filter, and failed.
        """
        await self._tell("session_start", event)

    async def on_session_update(self, event: Any) -> None:
        """Tell that a session went on. Raises as `on_session_start`."""
        await self._tell("session_update", event)

    async def on_session_end(self, event: Any) -> None:
        """Tell that a session ended. Raises as `on_session_start`."""
        await self._tell("session_end", event)

    async def _tell(self, phase: str, event: Any) -> None:
        decision = await self.run(phase, event)
        if decision.blocks:
            raise HookError(decision.reason)


@frozen(kw_only=True)
class ExecEvalHook(ExecHook):
    """A hook that is told the results of evaluations. Takes the arguments of `ExecHook`, and always
    observes.

    It reads the result alone, without an envelope.
    """

    known_phases: ClassVar[tuple[str, ...]] = KINDS["eval"]

    timeout: float | None = field(default=None, converter=_to_eval_timeout)
    mode: Literal["filter", "observe"] = field(default="observe", validator=_one_of("observe"))

    async def on_eval_result(self, result: Any) -> None:
        """Tell a result. Whatever goes wrong is logged, and not raised."""
        await self.run("eval_result", result)
