"""Tools, evaluators and selectors that are programs: a JSON object in, a JSON object out; a process
for each call, or a server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, TypeVar

import anyio
import attrs
from attrs import field, frozen

from anyspawn._env import Env, check_text
from anyspawn._masks import Masks
from anyspawn._model import Command, Completed, Sandbox
from anyspawn._spawn.tasks import PerLoop
from anyspawn.exceptions import (
    AnyspawnError,
    ConfigError,
    ExitError,
    NotStartedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.hooks import _checks as checks
from anyspawn.hooks._exec import BACKSTOP
from anyspawn.hooks._json import is_object
from anyspawn.hooks._payloads import EvalResult
from anyspawn.hooks._server import CallError, Served, Servers
from anyspawn.hooks._wire import WireError, check_whole, decode_object, encode
from anyspawn.tools._results import Selection, ToolResult, score, selection, tool_result

__all__ = ["AnswerError", "ExecEval", "ExecProgram", "ExecSelector", "ExecTool"]

_T = TypeVar("_T")
_SHORT = 4000
_ENVELOPE = ({"result"}, {"error"}, {"pending"})


def _to_eval_timeout(value: float | None) -> float:
    return value if value and value > 0 else 30.0


class AnswerError(AnyspawnError):
    """A program ran, but its answer is not valid; the message names the program and says why.

    Attributes:
        completed: Its outcome; ``None`` for a server, which still runs.
    """

    def __init__(self, message: str, completed: Completed | None = None) -> None:
        super().__init__(message)
        self.completed = completed


class _Calls:
    """The number of running calls of a program in one event loop."""

    def __init__(self) -> None:
        self._many = 0
        self._news = anyio.Event()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a call."""
        self._many += 1
        try:
            yield
        finally:
            self._many -= 1
            self._news.set()

    async def drained(self) -> None:
        """Wait until no call runs."""
        while self._many:
            self._news = anyio.Event()
            await self._news.wait()


@frozen(kw_only=True)
class ExecProgram(Served):
    """The base of programs that answer calls with JSON; `ExecTool` has its arguments."""

    what: ClassVar[str] = "program"

    name: str = field(validator=checks.text)
    command: str
    args: tuple[str, ...] = field(default=(), converter=checks.to_args)
    env: Env = field(default=Env(), converter=checks.to_env)
    timeout: float | None = field(default=None, validator=checks.seconds)
    sandbox: Sandbox = field(default=None, converter=checks.to_sandbox)
    output_limit: int = field(default=2**20, validator=checks.positive)
    runtime: Literal["exec", "server"] = field(
        default="exec", validator=checks.one_of("exec", "server")
    )
    _servers: Servers = field(init=False, factory=Servers, repr=False, eq=False)
    _calls: PerLoop[_Calls] = field(
        init=False, factory=lambda: PerLoop(_Calls), repr=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.sandbox, Sandbox):
            raise ConfigError(
                f"sandbox must have a name and an async spawn(command), as {self.sandbox!r} has not"
            )
        if self.runtime == "server" and not hasattr(self.sandbox, "open_process"):
            raise ConfigError(
                f"runtime 'server' needs a sandbox that can open a process, as {self.sandbox!r} cannot"
            )
        check_text(self.command, "command")
        for index, arg in enumerate(self.args):
            check_text(arg, f"args[{index}]")
        if not self.command:
            raise ConfigError("command is empty; it must name the program to run")
        self._asking(b"", self.env)

    async def _ask(self, message: Mapping[str, Any], what: str, read: Callable[[Any], _T]) -> _T:
        """Return the program's answer.

        Args:
            message: The message to the program.
            what: The name of the caller's argument, for error messages.
            read: Makes the result from the program's JSON, or raises `WireError`.

        Raises:
            TypeError, ValueError: JSON cannot represent the message; nothing was started.
            SpawnError: The program failed; the class says how.
            AnswerError: Its answer cannot be used.
        """
        try:
            told = encode(message)
        except WireError as exc:
            raise ValueError(f"{what}: {str(exc).removeprefix('the payload ')}") from None
        env, completed = self.env.look_up(os.environ), None
        try:
            with self._calls.get().one():
                if self.runtime == "server":
                    return read(await self._ask_server(told, env))
                completed = await self._spawn(self._asking(told, env))
            check_whole(completed)
            return read(decode_object(completed.stdout))
        except WireError as exc:
            raise self._unusable(exc, completed) from None

    async def _spawn(self, command: Command) -> Completed:
        timeout = self._seconds()
        with anyio.move_on_after(timeout + BACKSTOP) as scope:
            completed = await self.sandbox.spawn(command)
        if scope.cancelled_caught:
            raise SpawnTimeoutError(self._said(f"its sandbox did not return after {timeout:g} s"))
        if completed.error is None and completed.returncode != 0:
            raise ExitError(self._said(f"it exited with status {completed.returncode}"))
        return completed.check()

    async def _ask_server(self, told: bytes, env: Env) -> Any:
        server = self._servers.get(self.name, self.sandbox, self.output_limit)
        began, timeout = anyio.current_time(), self._seconds()
        command = Command([self.command, *self.args], env=env, timeout=timeout)
        try:
            answer = await server.call(command, told, deadline=began + timeout, timeout=timeout)
        except CallError as exc:
            if exc.answered is not None:
                return self._refused(Masks(env).cut(exc.answered))
            raise self._failed(exc) from exc.cause
        return answer["result"]

    def _refused(self, error: str) -> Any:
        """Return the answer for an error of JSON-RPC, or raise the error."""
        raise ExitError(self._said(f"its server answered with {error}"))

    def _failed(self, failure: CallError) -> Exception:
        """Return a server's failure as the kind of error that a process would have."""
        cause, said = failure.cause, self._said(str(failure).removeprefix("failed: "))
        if isinstance(cause, WireError):
            return AnswerError(said, failure.completed)
        if isinstance(cause, NotStartedError):
            error: SpawnError = NotStartedError(said, kind=cause.kind)
        elif isinstance(cause, TransportError):
            error = TransportError(said, started=cause.started, kind=cause.kind)
        elif isinstance(cause, SpawnError):
            error = type(cause)(said)
        else:
            return cause
        error.completed = failure.completed
        return error

    def _unusable(self, why: Exception, completed: Completed | None) -> AnswerError:
        said = self._said(str(why))
        if completed is not None and completed.stderr:
            said += f"; stderr: {Masks(self.env.look_up(os.environ)).stderr(completed.stderr)}"
        return AnswerError(said, completed)

    def _said(self, what: str) -> str:
        masks = Masks(self.env.look_up(os.environ))
        return masks.whole(f"{self.what} {self.name!r} failed: {what}")[:_SHORT]

    def _asking(self, stdin: bytes, env: Env) -> Command:
        return Command(
            [self.command, *self.args],
            stdin=stdin,
            env=env,
            timeout=self._seconds(),
            output_limit=self.output_limit,
        )

    async def drained(self) -> None:
        """Wait until no call runs in this event loop."""
        await self._calls.get().drained()


@frozen(kw_only=True)
class ExecTool(ExecProgram):
    """A tool that is a program: call it with the tool's arguments.

    Args:
        name: The tool's name in messages.
        command: The program. Without a slash it is looked up on ``PATH``.
        args: Its arguments.
        env: Variables for it, as for `anyspawn.Command`.
        timeout: Seconds for one call, including the wait for a slot. ``None``, 0 or negative: the
            sandbox's ``default_timeout``, 10 unless it was changed; 30 for an evaluator.
        sandbox: Where it runs. Default: `anyspawn.Direct`, on this host, as this user.
        output_limit: The largest answer, in bytes; more is an error. Default 1 MiB.
        runtime: ``"exec"`` (default): a process for each call. ``"server"``: one process that keeps
            running and answers JSON-RPC 2.0 requests, each on one line. The first call starts it;
            `aclose`, the end of the program's or the configuration's block, or the end of the event
            loop stops it.

    Raises:
        ConfigError, TypeError, ValueError: An argument is wrong; the message names it.
    """

    what: ClassVar[str] = "tool"

    async def __call__(self, args: Any = None) -> ToolResult:
        """Run the tool.

        Args:
            args: The tool's arguments: any JSON value, usually an object. Default: null.

        Returns:
            Its result, its own error, or that it is pending.

        Raises:
            TypeError, ValueError: JSON cannot represent the arguments; nothing was started.
            SpawnError: The program failed: it did not start, exited with a non-zero status, timed
                out, wrote too much, or was lost. The class says which.
            AnswerError: Its answer cannot be used.
        """
        result = await self._ask({"args": args}, "args", self._read)
        if result.error is None:
            return result
        return attrs.evolve(result, error=Masks(self.env.look_up(os.environ)).cut(result.error))

    def _read(self, answer: Any) -> ToolResult:
        # A server's result is either the tool's result or the object that a process would print.
        if self.runtime == "server" and not (is_object(answer) and answer.keys() in _ENVELOPE):
            return ToolResult(result=answer)
        return tool_result(answer)

    def _refused(self, error: str) -> Any:
        return {"error": error}


@frozen(kw_only=True)
class ExecEval(ExecProgram):
    """An evaluator that is a program: call it with the text to judge. Takes the arguments of
    `ExecTool`; the default ``timeout`` is 30 s.
    """

    what: ClassVar[str] = "eval"

    timeout: float | None = field(
        default=None, converter=_to_eval_timeout, validator=checks.seconds
    )

    async def __call__(
        self,
        content: str,
        *,
        params: Mapping[str, Any] | None = None,
        messages: Sequence[Any] = (),
        turn_index: int = 0,
        tool_calls: Sequence[Any] = (),
        variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str = "",
        prompt_id: str = "",
        eval_id: str = "",
    ) -> EvalResult:
        """Judge a text.

        Args:
            content: The text to judge.
            params: Settings of this evaluation.
            messages, turn_index, tool_calls, variables, metadata, session_id, prompt_id: The
                conversation around it. Empty values are left out, except ``turn_index``.
            eval_id: The name of the result. Default: the evaluator's name.

        Returns:
            The result, as hooks at ``eval_result`` take it: ``detail`` is its ``explanation``,
            ``data`` its ``value`` and ``details``.

        Raises:
            TypeError, ValueError, SpawnError, AnswerError: As for `ExecTool`.
        """
        if not isinstance(content, str):
            raise TypeError(f"content must be a text, not {type(content).__name__}")
        around = {
            "messages": messages,
            "turn_index": turn_index,
            "tool_calls": tool_calls,
            "variables": variables,
            "metadata": metadata,
            "session_id": session_id,
            "prompt_id": prompt_id,
        }
        message = {
            "type": self.name,
            **({"params": params} if params else {}),
            "content": content,
            "context": {
                name: value for name, value in around.items() if value or name == "turn_index"
            },
        }
        began = anyio.current_time()
        found = await self._ask(message, "content, params or context", score)
        return EvalResult(
            eval_id=eval_id or self.name,
            type=self.name,
            score=found.score,
            explanation=found.detail,
            value=found.data,
            details=found.data,
            duration_ms=round((anyio.current_time() - began) * 1000),
            session_id=session_id,
            turn_index=turn_index,
        )


@frozen(kw_only=True)
class ExecSelector(ExecProgram):
    """A selector that is a program: call it with a query and the candidates. Takes the arguments of
    `ExecTool`.
    """

    what: ClassVar[str] = "selector"

    async def __call__(
        self, query: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]
    ) -> Selection:
        """Choose among candidates.

        Args:
            query: The query.
            candidates: Objects with a unique ``id`` each.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was started.
            SpawnError: As for `ExecTool`.
            AnswerError: Its answer is not valid, or names an unknown candidate.
        """
        if not isinstance(query, Mapping):
            raise TypeError(f"query must be a mapping, not {type(query).__name__}")
        known: set[str] = set()
        for index, candidate in enumerate(candidates):
            found = candidate.get("id") if isinstance(candidate, Mapping) else None
            if not isinstance(found, str) or not found:
                raise ValueError(f"candidates[{index}] must be a mapping with a text 'id'")
            if found in known:
                raise ValueError(f"candidates[{index}]: the id {found!r} comes twice")
            known.add(found)
        message = {"query": query, "candidates": list(candidates)}
        return await self._ask(
            message, "query or candidates", lambda answer: selection(answer, known)
        )
