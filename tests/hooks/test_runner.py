"""Many hooks at once: which one decides, which are killed or waited for; nothing is left behind."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import anyio
import pytest

from anyspawn import ConfigError, Direct
from anyspawn.hooks import (
    Decision,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookRunner,
    run_hooks,
)
from anyspawn.hooks._exec import Told
from machine import processes_with

pytestmark = pytest.mark.anyio


def answer(allow, **fields):
    import json

    return f"cat >/dev/null; echo '{json.dumps({'allow': allow, **fields})}'"


def sh(name, script, kind=ExecToolHook, **options):
    return kind(name=name, command="sh", args=["-c", script], **options)


async def appears(file):
    with anyio.fail_after(30):
        while not file.exists():
            await anyio.sleep(0.01)


ALLOW, DENY = answer(True), answer(False, reason="no")


async def test_the_first_denial_in_declaration_order_decides(tmp_path):
    """The order in time does not count: a denial waits for the hooks before it, but not for those
    after it.
    """
    gate = tmp_path / "gate"
    slow = f"while ! [ -e {gate} ]; do sleep 0.01; done; {answer(False, reason='slow')}"
    quick = f"touch {gate}; {answer(False, reason='quick')}"
    decision = await run_hooks([sh("slow", slow), sh("quick", quick)], "before_execution", {})
    assert (decision.allow, decision.hook, decision.reason) == (False, "slow", "slow")


async def test_filters_that_still_run_are_ended_once_the_decision_is_certain(tmp_path, monkeypatch):
    """Filters that still run are killed with all their processes; the results of the others are
    kept.
    """
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    started = tmp_path / "started"
    endless = sh("endless", f"touch {started}; sleep 1000", timeout=1000)
    deny = sh("deny", f"while ! [ -e {started} ]; do sleep 0.01; done; {DENY}")
    with anyio.fail_after(60):
        decision = await run_hooks([sh("first", ALLOW), deny, endless], "before_execution", {})
    assert (decision.allow, decision.hook) == (False, "deny")
    assert decision.results == {
        "first": Decision(True, hook="first"),
        "deny": Decision(False, reason="no", hook="deny"),
    }
    assert not processes_with(str(tmp_path))


async def test_all_allow():
    """The metadata of all hooks is merged, and the first reason counts."""
    hooks = [
        sh("a", answer(True, metadata={"x": 1, "y": 1})),
        sh("b", answer(True, metadata={"x": 2}, reason="noted")),
    ]
    decision = await run_hooks(hooks, "before_execution", {})
    assert (decision.allow, decision.hook, decision.reason) == (True, "b", "noted")
    assert decision.metadata == {"x": 2, "y": 1}
    assert list(decision.results) == ["a", "b"]


async def test_an_enforced_denial_stops_what_has_not_happened_yet():
    """Before a call or a tool a denial blocks, whatever ``enforced`` says. Afterwards an enforced
    denial does not block, and later hooks are asked too; the decision is still a denial, and its
    replacement is never overridden by a hook that allows.
    """
    stands_in = {"text": "***", "replacement": "I cannot do that."}
    enforced = sh("enforced", answer(False, enforced=True, reason="no", metadata=stands_in))
    allower = sh("b", answer(True, metadata={"replacement": "theirs", "n": 1}))
    for hooks in ([enforced, allower], [allower, enforced]):
        before = await run_hooks(hooks, "before_execution", {})
        assert before.blocks
        assert (before.allow, before.hook, before.replacement) == (
            False,
            "enforced",
            "I cannot do that.",
        )
        after = await run_hooks(hooks, "after_execution", ({}, {}))
        assert not after.blocks
        assert (after.allow, after.enforced, after.hook) == (False, True, "enforced")
        assert (after.replacement, after.reason) == ("I cannot do that.", "no")
        assert after.metadata == {**stands_in, "n": 1}
    decision = await run_hooks([enforced, sh("b", DENY)], "after_execution", ({}, {}))
    assert (decision.blocks, decision.hook) == (True, "b")
    alone = await enforced.before_execution({})
    assert (alone.blocks, alone.replacement) == (True, "I cannot do that.")
    assert (await allower.before_execution({})).replacement is None


async def test_hooks_of_other_phases_are_left_out():
    """Without a hook for the phase, the decision allows and names no hook."""
    hooks = [sh("a", DENY, phases=["after_execution"]), sh("b", DENY, ExecProviderHook)]
    assert await run_hooks(hooks, "before_execution", {}) == Decision(True)
    assert await run_hooks([], "session_end", {}) == Decision(True)
    assert (await run_hooks(hooks, "after_execution", (1, 2))).hook == "a"


async def test_a_session_filter_that_fails_denies():
    """A failure that `on_session_start` raises is a denial in a runner."""
    decision = await run_hooks([sh("s", "exit 1", ExecSessionHook)], "session_start", {})
    assert (decision.allow, decision.hook) == (False, "s")


async def test_observers_do_not_hold_the_caller(tmp_path):
    """The decision does not wait for observers; leaving the runner does."""
    gate, done = tmp_path / "gate", tmp_path / "done"
    observer = sh("o", f"while ! [ -e {gate} ]; do sleep 0.01; done; touch {done}", mode="observe")
    async with HookRunner([observer, sh("f", ALLOW)]) as hooks:
        with anyio.fail_after(8):
            decision = await hooks.run("before_execution", {})
        assert decision.allow
        assert list(decision.results) == ["f"]
        assert not done.exists()
        gate.touch()
    assert done.exists()


async def test_draining_is_bounded(tmp_path, monkeypatch):
    """Observers that do not finish in time are killed."""
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    observer = sh("o", f"touch {tmp_path}/started; sleep 1000", mode="observe", timeout=1000)
    with anyio.fail_after(60):
        async with HookRunner([observer], drain_timeout=0.1) as hooks:
            await hooks.run("before_execution", {})
            await appears(tmp_path / "started")
    assert not processes_with(str(tmp_path))


@pytest.mark.parametrize("how", ["exception", "cancellation"])
async def test_leaving_early_ends_observers_at_once(how, tmp_path, monkeypatch):
    """Observers are killed at once, and the exception continues unchanged."""
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    observer = sh("o", f"touch {tmp_path}/started; sleep 1000", mode="observe", timeout=1000)
    with anyio.fail_after(60):
        if how == "exception":
            with pytest.raises(ZeroDivisionError):
                async with HookRunner([observer], drain_timeout=1000) as hooks:
                    await hooks.run("before_execution", {})
                    await appears(tmp_path / "started")
                    raise ZeroDivisionError
        else:
            with anyio.CancelScope() as scope:
                async with HookRunner([observer], drain_timeout=1000) as hooks:
                    await hooks.run("before_execution", {})
                    await appears(tmp_path / "started")
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
    assert not processes_with(str(tmp_path))


async def test_observers_are_bounded_in_number(tmp_path, caplog):
    """Observers above the limit are skipped, which is logged, and the caller does not wait."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    observer = sh(
        "o", f"while ! [ -e {gate} ]; do sleep 0.01; done; echo x >> {log}", mode="observe"
    )
    async with HookRunner([observer], max_observing=3, max_concurrent=2) as hooks:
        for _ in range(5):
            await hooks.run("before_execution", {})
        gate.touch()
    assert log.read_text() == "x\n" * 3
    assert [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ] == ["hook 'o' was left out: 3 others observe already"] * 2


async def test_observers_are_bounded_in_bytes_and_share_them(tmp_path, caplog):
    """Observers of one payload share it in memory; payloads above the limit are skipped."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    script = f"cat >/dev/null; while ! [ -e {gate} ]; do sleep 0.01; done; echo x >> {log}"
    observers = [sh(f"o{n}", script, mode="observe") for n in range(3)]
    async with HookRunner(observers, max_observing_bytes=250_000) as hooks:
        for _ in range(3):
            await hooks.run("before_execution", {"Args": "x" * 100_000})
        await hooks.run("before_execution", {"Args": "small"})
        gate.touch()
    assert log.read_text() == "x\n" * 9
    assert len(caplog.records) == 3
    assert "bytes of payloads are being observed already" in caplog.text


async def test_runners_are_left_in_any_order_and_from_any_task():
    """A reload opens the new runner before it closes the old one, and start-up and shutdown may be
    two tasks.
    """
    hooks = [sh("f", ALLOW), sh("o", "true", mode="observe")]
    old, new = HookRunner(hooks), HookRunner(hooks)

    async def enter():
        await old.__aenter__()
        assert (await old.run("before_execution", {})).allow

    async def leave(runner):
        await runner.__aexit__(None, None, None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
    with pytest.raises(RuntimeError, match="is open already"):
        await old.__aenter__()
    async with anyio.create_task_group() as tasks:
        await new.__aenter__()
        tasks.start_soon(leave, old)
    assert (await new.run("before_execution", {})).allow
    await leave(new)
    with pytest.raises(RuntimeError, match="is not open"):
        await new.run("before_execution", {})


async def test_calls_under_way_are_drained(tmp_path):
    """Leaving the runner waits for calls of other tasks."""
    gate, decisions = tmp_path / "gate", []

    async def ask():
        decisions.append(await runner.run("before_execution", {}))

    script = f"touch {tmp_path}/started; while ! [ -e {gate} ]; do sleep 0.01; done; {ALLOW}"
    async with anyio.create_task_group() as tasks:
        async with HookRunner([sh("f", script)]) as runner:
            tasks.start_soon(ask)
            await appears(tmp_path / "started")
            tasks.start_soon(anyio.Path(gate).touch)
        assert [decision.allow for decision in decisions] == [True]


async def test_run_hooks_without_a_runner_does_not_wait_for_observers_either(tmp_path):
    """Observers without a runner belong to the event loop."""
    gate, done = tmp_path / "gate", tmp_path / "done"
    observer = sh("o", f"while ! [ -e {gate} ]; do sleep 0.01; done; touch {done}", mode="observe")
    with anyio.fail_after(8):
        assert await run_hooks([observer], "before_execution", {}) == Decision(True)
    assert not done.exists()
    gate.touch()
    await appears(done)


async def test_an_observer_is_told_the_payload_as_it_was(tmp_path):
    """The caller may change its payload afterwards."""
    log = tmp_path / "log"
    async with HookRunner([sh("o", f"cat >> {log}", mode="observe")]) as hooks:
        for number in range(5):
            payload = {"number": number}
            await hooks.run("before_execution", payload)
            payload["number"] = "changed"
    assert "changed" not in log.read_text()


async def test_run_hooks_goes_on_after_all_other_tasks_were_cancelled(on_trio):
    """An application that shuts down may cancel all tasks and then ask its session hooks."""
    if on_trio:
        return  # other tasks cannot cancel trio's system tasks
    observer = sh("o", "sleep 1000", mode="observe", timeout=1000)
    await run_hooks([observer], "before_execution", {})
    await anyio.sleep(0.1)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    mine = [task for task in others if task.get_name() == "anyspawn hook o"]
    assert mine
    for task in mine:
        task.cancel()
    with anyio.fail_after(30):
        assert (await run_hooks([sh("f", ALLOW)], "before_execution", {})).allow
        await asyncio.gather(*mine, return_exceptions=True)
        assert (await run_hooks([sh("f", ALLOW), observer], "before_execution", {})).allow
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "anyspawn hook o"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


OBSERVE_AND_END = """
import anyio, sys
from anyspawn.hooks import ExecToolHook, run_hooks

async def main():
    hooks = [ExecToolHook(name=str(n), command="sleep", args=["1000"], mode="observe", timeout=1000) for n in range(3)]
    await run_hooks(hooks, "before_execution", {})
    await anyio.sleep(0.2)

backend, uvloop = sys.argv[1:]
anyio.run(main, backend=backend, backend_options={"use_uvloop": True} if uvloop == "True" else {})
"""


async def test_observers_end_with_their_loop(anyio_backend, tmp_path, monkeypatch):
    """No observer survives its event loop, whichever loop it is."""
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    backend, options = anyio_backend
    argv = [sys.executable, "-W", "error", "-c", OBSERVE_AND_END, backend, str(bool(options))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not processes_with(str(tmp_path))


async def test_the_limiter_holds(tmp_path):
    """Never do more than `max_concurrent` hook processes run at once."""
    log = tmp_path / "log"
    script = f"echo + >> {log}; until [ $(grep -c + {log}) -ge 2 ]; do sleep 0.01; done; echo - >> {log}; {ALLOW}"
    async with HookRunner(
        [sh(str(n), script, timeout=60) for n in range(8)], max_concurrent=2
    ) as hooks:
        assert (await hooks.run("before_execution", {})).allow
    running = most = 0
    for line in log.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert most == 2


async def test_waiting_for_a_place_counts_for_the_timeout(tmp_path):
    """Waiting for a place counts towards the hook's timeout, so a call returns in time however many
    others run.
    """
    long = sh("long", f"touch {tmp_path}/started; sleep 1000", timeout=1000)
    async with HookRunner(max_concurrent=1) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.run("before_execution", {}, hooks=[long]))
        await appears(tmp_path / "started")
        decision = await runner.run("before_execution", {}, hooks=[sh("short", ALLOW, timeout=0.3)])
        tasks.cancel_scope.cancel()
    assert (decision.allow, decision.hook) == (False, "short")
    assert "hook 'short' was not asked: no slot was free within 0.3 s" in decision.reason


@pytest.mark.heavy
async def test_two_hundred_turns_of_five_hooks():
    """Each of 200 turns gets its own right verdict, and nothing is left."""
    judge = """import json, sys
request = json.load(sys.stdin)["request"]
print(json.dumps({"allow": request["turn"] % 7 != int(sys.argv[1]), "reason": str(request["turn"])}))"""
    sandbox = Direct(default_timeout=300)
    fast = [sh(str(n), answer(True, metadata={str(n): n}), sandbox=sandbox) for n in range(4)]
    python = ExecToolHook(
        name="judge", command=sys.executable, args=["-S", "-c", judge, "3"], sandbox=sandbox
    )
    decisions = {}

    async with HookRunner([*fast[:2], python, *fast[2:]], max_concurrent=32) as hooks:

        async def turn(number):
            decisions[number] = await hooks.run("before_execution", {"turn": number})

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(turn, number)
    for number, decision in decisions.items():
        assert decision.allow is (number % 7 != 3), decision
        assert decision.reason == str(number)
        assert decision.hook == "judge"
    assert len(decisions) == 200


async def test_cancelling_a_run_ends_all_its_hooks(tmp_path, monkeypatch):
    """When the cancellation arrives, every hook is gone."""
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    hooks = [sh(str(n), f"touch {tmp_path}/{n}; sleep 1000", timeout=1000) for n in range(3)]
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_hooks, hooks, "before_execution", {})
            for number in range(3):
                await appears(tmp_path / str(number))
            scope.cancel()
    assert not processes_with(str(tmp_path))


async def test_a_runner_is_a_collection_of_its_hooks():
    """A runner gives its hooks by name and in order, and `run_hooks` accepts it."""
    first, second = sh("a", ALLOW), sh("b", DENY)
    async with HookRunner([first, second]) as hooks:
        assert hooks["b"] is second
        assert list(hooks) == [first, second]
        assert (await run_hooks(hooks, "before_execution", {})).hook == "b"
        with pytest.raises(KeyError, match="no hook is called 'bb'; did you mean 'b'"):
            hooks["bb"]


async def test_wrong_use():
    """Each mistake is an error before anything starts."""
    with pytest.raises(ConfigError, match="two have the name 'a'"):
        await run_hooks([sh("a", ALLOW), sh("a", DENY)], "before_execution", {})
    with pytest.raises(ConfigError, match="'guard' is not an ExecHook"):
        HookRunner(["guard"])
    with pytest.raises(ConfigError, match="max_concurrent must be a whole number above 0"):
        HookRunner(max_concurrent=0)
    with pytest.raises(ConfigError, match="drain_timeout must be a finite number"):
        HookRunner(drain_timeout=float("inf"))
    with pytest.raises(ValueError, match="unknown phase 'before'"):
        await run_hooks([], "before", {})
    with pytest.raises(TypeError, match="the payload of after_call must be a tuple"):
        await run_hooks([], "after_call", {})
    with pytest.raises(RuntimeError, match="is not open"):
        await HookRunner([]).run("before_call", {})


def test_an_observer_that_is_cancelled_before_its_first_step_holds_nobody():
    """On asyncio, a task that is cancelled before its first step runs no code at all. The runner
    must not wait for it.
    """
    watch = ExecToolHook(name="watch", command="true", mode="observe")

    async def main():
        async with HookRunner([watch], drain_timeout=60) as runner:
            runner._desk._observe(watch, Told.of("before_execution", {}))
            named = [t for t in asyncio.all_tasks() if t.get_name() == "anyspawn hook watch"]
            assert [task.cancel() for task in named] == [True]
            with anyio.fail_after(30):
                await runner._desk.drain()

    anyio.run(main)
