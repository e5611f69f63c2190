"""Telemetry of calls: log records, spans and durations, without secrets, and without work if nobody
listens.
"""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys

import anyio
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from anyspawn import Command, Direct, spawn
from anyspawn._spawn import proc
from anyspawn.hooks import ExecToolHook, HookRunner

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t-value"


@pytest.fixture(scope="session")
def exporter():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture(scope="session")
def reader():
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


@pytest.fixture
def spans(exporter):
    exporter.clear()
    return exporter.get_finished_spans


async def test_a_span_for_each_call(spans):
    """The span follows OpenTelemetry's conventions for processes and errors, and is a child of the
    caller's span.
    """
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        await Direct().spawn(
            Command(
                ["/bin/sh", "-c", "exit 3", SECRET],
                env={"A": SECRET},
                stdin=SECRET.encode(),
                id="a" * 32,
            )
        )
    span = spans()[0]
    assert (span.name, span.kind) == ("sh", SpanKind.CLIENT)
    assert span.parent.span_id == caller.get_span_context().span_id
    attributes = dict(span.attributes)
    assert attributes.pop("process.pid") > 0
    assert attributes == {
        "process.executable.name": "sh",
        "process.exit.code": 3,
        "error.type": "ExitError",
        "anyspawn.id": "a" * 32,
        "anyspawn.mode": "direct",
        "anyspawn.cleanup": "not needed",
    }
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "'/bin/sh' exited with status 3",
    )
    assert SECRET not in span.to_json()


async def test_a_span_of_a_call_that_goes_well(spans):
    """The span has no error and an unset status."""
    await spawn(["true"])
    (span,) = spans()
    assert "error.type" not in span.attributes
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["process.exit.code"] == 0


async def test_a_span_of_a_call_that_never_started_or_was_cancelled(spans):
    """The span names the error and has no exit code."""
    await spawn(["no-such-program"])
    with anyio.move_on_after(0.2):
        await spawn(["sleep", "1000"])
    missing, cancelled = spans()
    assert missing.attributes["error.type"] == "NotStartedError"
    assert "process.pid" not in missing.attributes
    assert cancelled.attributes["error.type"] == anyio.get_cancelled_exc_class().__name__
    assert "process.exit.code" not in cancelled.attributes


async def test_a_span_for_each_hook(spans):
    """The span contains the span of its call. The parent of an observing hook's span is the
    caller's.
    """
    deny = ExecToolHook(name="deny", command="sh", args=["-c", "echo '{\"allow\": false}'"])
    broken = ExecToolHook(
        name="broken",
        command="sh",
        args=["-c", "cat >&2; false"],
        mode="observe",
        env={"A": SECRET},
    )
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        async with HookRunner([deny, broken]) as hooks:
            await hooks.run("before_execution", {"password": SECRET})
    assert SECRET not in "".join(span.to_json() for span in spans())
    named = {span.name: span for span in spans()}
    inner = {span.parent.span_id for span in spans() if span.name == "sh"}
    for name in ("hook deny", "hook broken"):
        assert named[name].parent.span_id == caller.get_span_context().span_id
    assert inner == {named["hook deny"].context.span_id, named["hook broken"].context.span_id}
    assert dict(named["hook deny"].attributes) == {
        "anyspawn.hook.name": "deny",
        "anyspawn.hook.phase": "before_execution",
        "anyspawn.hook.mode": "filter",
        "anyspawn.hook.sandbox": "direct",
        "anyspawn.hook.asked": True,
        "anyspawn.hook.allow": False,
        "anyspawn.hook.changed": (),
    }
    assert named["hook deny"].status.status_code is StatusCode.UNSET
    assert named["hook broken"].attributes["error.type"] == "ExitError"
    assert "exited with status 1" in named["hook broken"].status.description


async def test_hooks_that_are_not_asked(spans):
    """Hooks that are not asked have a span that says why; the span of a verdict has the hook's
    reason.
    """

    def hook(name, answer="", **options):
        answer = answer or '{"allow": true}'
        return ExecToolHook(name=name, command="echo", args=[answer], **options)

    hooks = [
        hook("after", phases=["after_execution"]),
        hook("bash", protocol="claude", matcher="Bash"),
        hook("deny", '{"allow": false, "reason": "not today"}', sequential=True),
        hook("behind"),
        hook("watching", mode="observe"),
    ]
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        async with HookRunner(hooks) as runner:
            assert (await runner.run("before_execution", {"Name": "Read"})).hook == "deny"
    named = {span.name: span for span in spans()}
    why = {
        "after": "it is asked at after_execution",
        "bash": "its matcher leaves this payload out",
        "behind": "a hook before it denied",
        "watching": "a hook before it denied",
    }
    for name, reason in why.items():
        span = named[f"hook {name}"]
        assert span.parent.span_id == caller.get_span_context().span_id
        assert span.attributes["anyspawn.hook.asked"] is False
        assert span.attributes["anyspawn.hook.why"] == reason
    assert named["hook deny"].attributes["anyspawn.hook.asked"] is True
    assert named["hook deny"].attributes["anyspawn.hook.reason"] == "not today"


async def test_what_a_hook_rewrote(spans):
    """A span names the members that changed, without their values."""
    answer = {"allow": True, "payload": {"Name": "x", "Args": {"a": [2], "b": {"c": SECRET}}}}
    hook = ExecToolHook(name="edit", command="echo", args=[json.dumps(answer)], rewrites=True)
    async with HookRunner([hook]) as hooks:
        payload = {"Name": "x", "Args": {"a": [1], "b": {"c": 1, "d": 2}}}
        assert (await hooks.run("before_execution", payload)).payload is not None
    named = {span.name: span for span in spans()}
    assert named["hook edit"].attributes["anyspawn.hook.changed"] == (
        "Args.a",
        "Args.b.c",
        "Args.b.d",
    )
    assert SECRET not in named["hook edit"].to_json()


async def test_durations(reader):
    """One histogram in seconds has the mode and the error as attributes."""
    await spawn(["false"], sandbox=Direct(name="measured"))
    await spawn(["true"], sandbox=Direct(name="measured"))
    (metric,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("anyspawn.spawn.duration", "s")
    points = [
        point
        for point in metric.data.data_points
        if point.attributes["anyspawn.mode"] == "measured"
    ]
    assert {point.attributes.get("error.type") for point in points} == {None, "ExitError"}
    assert all(point.count >= 1 and 0 < point.sum < 60 * point.count for point in points)


async def test_log_records(caplog):
    """At debug level the start and the end of each call are logged, with its id, mode, duration and
    outcome.
    """
    with caplog.at_level(logging.DEBUG, "anyspawn"):
        await Direct().spawn(
            Command(
                ["sh", "-c", "exit 3", SECRET],
                env={"A": SECRET},
                stdin=SECRET.encode(),
                id="b" * 32,
            )
        )
    start, end = [
        record.getMessage() for record in caplog.records if record.name == "anyspawn.spawn"
    ]
    assert start == f"start id={'b' * 32} mode=direct program='sh'"
    words = dict(word.split("=", 1) for word in end.removesuffix(" cleanup=not needed").split()[1:])
    assert float(words.pop("duration")) > 0
    assert words == {"id": "b" * 32, "mode": "direct", "outcome": "ExitError", "returncode": "3"}
    assert SECRET not in caplog.text


async def test_nothing_is_logged_unless_asked_for(caplog):
    """At info level ordinary calls are not logged, not even failed ones."""
    with caplog.at_level(logging.INFO, "anyspawn"):
        await spawn(["false"])
    assert not caplog.records


async def test_an_unconfirmed_clean_up_is_a_warning(caplog, monkeypatch):
    """A program may still run, so this is a warning."""

    def cannot_look(mark):
        raise OSError(errno.EMFILE, "no descriptors")

    monkeypatch.setattr(proc, "sweep", cannot_look)
    await spawn(["sleep", "1000"], timeout=0.1)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.name == "anyspawn.spawn"
    assert "something of 'sleep' may still run" in record.getMessage()


def test_without_the_library_nothing_is_imported():
    """A program without OpenTelemetry or logging does not import them."""
    code = """
import sys, trio, anyspawn
before = {"logging", "opentelemetry"} & set(sys.modules)
trio.run(anyspawn.spawn, ["true"])
assert not (({"logging", "opentelemetry"} & set(sys.modules)) - before), before
print("opentelemetry" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.strip() == "False"
