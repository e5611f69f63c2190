"""Telemetry of calls: log records, and OpenTelemetry's spans and durations. They never contain a
variable's value or stdin.

A program that uses either has imported ``logging`` or ``opentelemetry`` itself. So this module
imports neither; without both, a call costs two look-ups in ``sys.modules``.
https://opentelemetry.io/docs/specs/semconv/ names the attributes (``process.*``, ``error.type``).
"""

from __future__ import annotations

import os.path
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from anyspawn._foreign import plain
from anyspawn.exceptions import SpawnError

if TYPE_CHECKING:
    from anyspawn._model import Command, Completed

__all__ = ["HookWatch", "Watched", "tell_not_asked", "warn", "watch_hook", "watch_spawn"]

_histograms: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def warn(logger: str, message: str, *args: object) -> None:
    """Log a warning."""
    import logging

    shown = (plain(arg) if isinstance(arg, str) else arg for arg in args)
    logging.getLogger(logger).warning(message, *shown)


def _debug_logger() -> Any:
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    logger = logging.getLogger("anyspawn.spawn")
    return logger if logger.isEnabledFor(logging.DEBUG) else None


def _start_span(name: str, attributes: dict[str, Any], *, remote: bool) -> Any:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not hasattr(
        trace, "get_tracer"
    ):  # absent, or just being imported by another thread
        return None
    kind = trace.SpanKind.CLIENT if remote else trace.SpanKind.INTERNAL
    return trace.get_tracer("anyspawn").start_span(name, kind=kind, attributes=attributes)


def _end_span(span: Any, attributes: dict[str, Any], error_type: str | None, message: str) -> None:
    span.set_attributes(attributes)
    if error_type is not None:
        trace = sys.modules["opentelemetry.trace"]
        span.set_attribute("error.type", error_type)
        span.set_status(trace.StatusCode.ERROR, message)
    span.end()


def _record(seconds: float, attributes: dict[str, Any]) -> None:
    metrics = sys.modules.get("opentelemetry.metrics")
    if metrics is None or not hasattr(metrics, "get_meter_provider"):
        return
    provider = metrics.get_meter_provider()
    if provider not in _histograms:
        _histograms[provider] = provider.get_meter("anyspawn").create_histogram(
            "anyspawn.spawn.duration",
            unit="s",
            description="Duration of calls, from their start to the end of clean-up.",
        )
    _histograms[provider].record(seconds, attributes)


def watch_spawn(command: Command, mode: str) -> Watched:
    """Return a context manager that records a call.

    Args:
        command: The command.
        mode: The name of its sandbox; empty for a sandbox's own calls, which are not recorded.
    """
    return Watched(command, mode)


class Watched:
    """The record of one call.

    Attributes:
        pid: The local process, once it was started.
        unconfirmed: A process of it can still run.
    """

    def __init__(self, command: Command, mode: str) -> None:
        self.pid: int | None = None
        self.unconfirmed = False
        self._command = command
        self._mode = mode
        self._completed: Completed | None = None
        self._logger = _debug_logger() if mode else None
        self._span: Any = None
        self._measured = bool(mode) and "opentelemetry.metrics" in sys.modules

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        if self._mode:
            program = os.path.basename(self._command.argv[0])
            if self._logger is not None:
                self._logger.debug(
                    "start id=%s mode=%s program=%r", self._command.id, self._mode, program
                )
            if "opentelemetry.trace" in sys.modules:
                attributes = {
                    "process.executable.name": program,
                    "anyspawn.id": self._command.id,
                    "anyspawn.mode": self._mode,
                }
                self._span = _start_span(program, attributes, remote=True)
        return self

    def came_to(self, completed: Completed) -> Completed:
        """Record the outcome, and return it."""
        self._completed = completed
        return completed

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: object
    ) -> None:
        if self.unconfirmed:
            message = "id=%s mode=%s: something of %r may still run"
            warn("anyspawn.spawn", message, self._command.id, self._mode, self._command.argv[0])
        if self._logger is not None or self._span is not None or self._measured:
            self._tell(exc)

    def _tell(self, raised: BaseException | None) -> None:
        seconds = time.perf_counter() - self._began
        completed = self._completed
        error = completed.error if completed is not None else raised
        error_type = type(error).__name__ if error is not None else None
        attributes: dict[str, Any] = {} if self.pid is None else {"process.pid": self.pid}
        if completed is not None:
            attributes["anyspawn.cleanup"] = completed.cleanup.value
            if completed.returncode is not None:
                attributes["process.exit.code"] = completed.returncode
        if self._logger is not None:
            self._logger.debug(
                "end id=%s mode=%s duration=%.6f outcome=%s returncode=%s cleanup=%s",
                self._command.id,
                self._mode,
                seconds,
                error_type or "ok",
                None if completed is None else completed.returncode,
                None if completed is None else completed.cleanup.value,
            )
        if self._span is not None:
            # A caller's callback can raise anything; errors of this package hold no secret.
            said = error.message if isinstance(error, SpawnError) else ""
            _end_span(self._span, attributes, error_type, said)
        told = {"anyspawn.mode": self._mode}
        _record(seconds, {**told, **({"error.type": error_type} if error_type else {})})


class HookWatch:
    """Records the decision of one hook."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self._error: tuple[str | None, str] = (None, "")
        self._attributes: dict[str, Any] = {}

    def decided(self, *, allow: bool, reason: str, changed: Sequence[str]) -> None:
        """Record the verdict, with the hook's reason, and the members of the payload that it
        changed.
        """
        self._attributes["anyspawn.hook.allow"] = allow
        if reason:
            self._attributes["anyspawn.hook.reason"] = reason
        self._attributes["anyspawn.hook.changed"] = changed

    def failed(self, error_type: str, reason: str) -> None:
        """Record why there is no verdict."""
        self._error = (error_type, reason)

    def end(self) -> None:
        """Record that the hook has finished."""
        if self._span is not None:
            _end_span(self._span, self._attributes, *self._error)


def _of_hook(name: str, phase: str, mode: str, sandbox: str) -> dict[str, Any]:
    return {
        "anyspawn.hook.name": name,
        "anyspawn.hook.phase": phase,
        "anyspawn.hook.mode": mode,
        "anyspawn.hook.sandbox": sandbox,
    }


def tell_not_asked(name: str, phase: str, mode: str, sandbox: str, why: str) -> None:
    """Record that a hook was not asked, and why, as a span without duration."""
    told = {"anyspawn.hook.asked": False, "anyspawn.hook.why": why}
    span = _start_span(f"hook {name}", _of_hook(name, phase, mode, sandbox) | told, remote=False)
    if span is not None:
        span.end()


@contextmanager
def watch_hook(name: str, phase: str, mode: str, sandbox: str) -> Iterator[HookWatch]:
    """Give the record of a hook; calls inside are parts of its span."""
    attributes = _of_hook(name, phase, mode, sandbox) | {"anyspawn.hook.asked": True}
    span = _start_span(f"hook {name}", attributes, remote=False)
    watch = HookWatch(span)
    try:
        if span is None:
            yield watch
        else:
            with sys.modules["opentelemetry.trace"].use_span(
                span, record_exception=False, set_status_on_exception=False
            ):
                yield watch
    except BaseException as exc:
        watch.failed(type(exc).__name__, "")
        raise
    finally:
        watch.end()
