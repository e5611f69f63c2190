"""Programs written as command hooks of Claude Code work with `protocol="claude"`."""

from __future__ import annotations

import json
import os
import sys

import pytest

from anyspawn import Bubblewrap, ConfigError
from anyspawn.hooks import (
    Decision,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookError,
    SessionEvent,
    ToolRequest,
    run_hooks,
)
from machine import bubblewrap_works

pytestmark = pytest.mark.anyio

BASH = ToolRequest(name="Bash", args={"command": "rm -rf /"}, call_id="toolu_1")


def sh(script, kind=ExecToolHook, **options):
    return kind(name="guard", command="sh", args=["-c", script], protocol="claude", **options)


def says(**answer):
    return f"cat >/dev/null; echo '{json.dumps(answer)}'"


def pre(**output):
    return says(hookSpecificOutput={"hookEventName": "PreToolUse", **output})


@pytest.mark.parametrize(
    ("script", "allow", "reason"),
    [
        ("exit 0", True, ""),
        ("echo some text", True, ""),
        ("echo 'not this one' >&2; exit 2", False, "not this one"),
        (
            'echo \'{"hookSpecificOutput": {"permissionDecision": "allow"}}\'; exit 2',
            False,
            "gave no reason",
        ),
        (pre(permissionDecision="allow", permissionDecisionReason="fine"), True, "fine"),
        (pre(permissionDecision="deny", permissionDecisionReason="no"), False, "no"),
        (pre(permissionDecision="deny"), False, "gave no reason"),
        (
            pre(permissionDecision="ask", permissionDecisionReason="sure?"),
            False,
            "have a person asked (ask): sure?",
        ),
        (pre(permissionDecision="defer"), False, "have a person asked (defer)"),
        (pre(), True, ""),
        (
            pre(permissionDecision="allow", updatedInput={"command": "ls"}),
            False,
            "allows only a changed payload",
        ),
        (pre(updatedInput={"command": "ls"}), False, "allows only a changed payload"),
        (pre(permissionDecision="allow", updatedInput={"command": "rm -rf /"}), True, ""),
        ('printf \'\\357\\273\\277{"decision": "block", "reason": "bom"}\'', False, "bom"),
        (says(decision="approve", reason="old"), True, "old"),
        (says(decision="block", reason="old"), False, "old"),
        (
            says(decision="block", hookSpecificOutput={"permissionDecision": "allow"}),
            False,
            "gave no reason",
        ),
        (says(**{"continue": False, "stopReason": "enough"}), False, "enough"),
        (says(**{"continue": True, "suppressOutput": True}), True, ""),
        (says(systemMessage="hello"), True, ""),
    ],
)
async def test_verdicts(script, allow, reason):
    """Exit statuses and answers mean the same as in Claude Code, but an answer that would ask a
    person denies.
    """
    decision = await sh(script).before_execution(BASH)
    assert decision.allow is allow
    assert reason in decision.reason
    assert bool(decision.reason) is bool(reason)


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("exit 1", "exited with status 1"),
        ("kill -9 $$", "SIGKILL"),
        ("sleep 100", "timed out"),
        ("echo '{oops'", "not one JSON object"),
        (says(decision="maybe"), "its decision is 'maybe'"),
        (pre(permissionDecision="maybe"), "its permissionDecision is 'maybe'"),
        (
            pre(permissionDecision=True),
            "'permissionDecision' of its answer is a boolean, not a string",
        ),
        ("printf '\\357\\273\\277{oops'", "not one JSON object"),
        ('echo loading; echo \'{"decision": "block"}\'', "not one JSON object"),
        ('echo \'[{"decision": "block"}]\'', "not one JSON object"),
        (says(allow=False), "'allow', which PreToolUse does not know"),
        (
            says(permissionDecision="deny"),
            "'permissionDecision', which PreToolUse does not know",
        ),
        (
            says(hookSpecificOutput={"hookEventName": "PermissionRequest"}),
            "is not one for PreToolUse",
        ),
        (pre(decision={"behavior": "deny"}), "'decision', which the hookSpecificOutput"),
        (
            says(hookSpecificOutput=[]),
            "'hookSpecificOutput' of its answer is an array, not an object",
        ),
        (says(**{"continue": "false"}), "'continue' of its answer is a string, not a boolean"),
    ],
)
async def test_failures_deny_unless_told_otherwise(script, cause):
    """Claude Code continues after an error, this denies; `on_failure="allow"` chooses Claude Code's
    policy.
    """
    timeout = 0.3 if cause == "timed out" else 10.0
    decision = await sh(script, timeout=timeout).before_execution(BASH)
    assert not decision.allow
    assert cause in decision.reason
    assert (await sh(script, timeout=timeout, on_failure="allow").before_execution(BASH)).allow


PROSE = [
    ("printf 'Open:\\n[ ] write tests\\n'", True),
    ("echo 'the rule is deny: true'", True),
    ("echo 'void main() { return; }'", True),
    ('echo \'INFO {"decision": "block"}\'', False),
    ("echo 'see {decision: block}'", False),
    ('printf \'\\033[{"decision": "block"}\'', False),
]


@pytest.mark.parametrize(("script", "allow"), PROSE)
async def test_text_for_the_model(script, allow):
    """Text is context, even with brackets and braces. If it may contain a verdict, it is a failure
    instead.
    """
    event = SessionEvent(messages=[{"role": "user", "content": "hi"}])
    decision = await sh(script, ExecSessionHook).run("session_update", event)
    assert decision.allow is allow
    assert bool(decision.context) is allow
    assert (await sh(script, ExecSessionHook).run("session_start", event)).context


READ = "cat > read.json"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_what_a_hook_reads(folder):
    """A hook reads the common fields and the tool's, and the project's folder is in its
    environment.
    """
    await sh('cat > read.json; printf "$CLAUDE_PROJECT_DIR" > env').before_execution(BASH)
    assert json.loads((folder / "read.json").read_text()) == {
        "session_id": "",
        "transcript_path": "",
        "cwd": str(folder),
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": "rm -rf /"},
        "tool_use_id": "toolu_1",
    }
    assert (folder / "env").read_text() == os.getcwd()


async def test_a_payload_in_claude_codes_own_form_goes_over_as_it_is(folder):
    """An application can pass a payload in Claude Code's form with all its fields. Only the event's
    name is replaced by the phase's.
    """
    payload = {
        "tool_name": "Edit",
        "tool_input": {"a": 1},
        "session_id": "s",
        "cwd": "/x",
        "prompt_id": "p",
        "hook_event_name": "?",
    }
    await sh(READ).before_execution(payload)
    read = json.loads((folder / "read.json").read_text())
    assert read | payload == read | {"hook_event_name": "?"}
    assert read["hook_event_name"] == "PreToolUse"


async def test_other_events(folder):
    """A tool's result and the events of a session reach the hook."""
    decision = await sh(f"{READ}; echo bad result >&2; exit 2").after_execution(
        BASH, {"stdout": "x"}
    )
    assert (decision.allow, decision.reason) == (False, "bad result")
    read = json.loads((folder / "read.json").read_text())
    assert (read["hook_event_name"], read["tool_response"]) == ("PostToolUse", {"stdout": "x"})
    decision = await sh(says(decision="block", reason="again")).after_execution(BASH, None)
    assert (decision.allow, decision.reason) == (False, "again")
    assert (
        "is not one for PostToolUse"
        in (await sh(pre(permissionDecision="allow")).after_execution(BASH, None)).reason
    )
    misplaced = says(
        hookSpecificOutput={"hookEventName": "PostToolUse", "permissionDecision": "allow"}
    )
    assert "does not know" in (await sh(misplaced).after_execution(BASH, None)).reason

    session = sh(READ, ExecSessionHook)
    event = SessionEvent(session_id="s", messages=[{"role": "user", "content": "hi"}])
    for call, name, more in (
        (session.on_session_start, "SessionStart", {"source": "startup"}),
        (session.on_session_update, "UserPromptSubmit", {"prompt": "hi"}),
        (session.on_session_end, "SessionEnd", {"reason": "other"}),
    ):
        await call(event)
        read = json.loads((folder / "read.json").read_text())
        assert read | more == read
        assert (read["hook_event_name"], read["session_id"]) == (name, "s")
    with pytest.raises(HookError, match="not that"):
        await sh("echo not that >&2; exit 2", ExecSessionHook).on_session_update(event)


@pytest.mark.parametrize("payload", [None, "text", [], {}, {"Name": 3}])
async def test_a_payload_that_names_no_tool_denies(payload):
    """A payload without a tool's name cannot be checked, so it is denied."""
    decision = await sh("exit 0").before_execution(payload)
    assert not decision.allow
    assert "hook 'guard' was not asked: the payload " in decision.reason


@pytest.mark.parametrize(
    ("matcher", "asked"),
    [
        ("*", {"Bash", "Edit", "NotebookEdit", "mcp__memory__add"}),
        ("", {"Bash", "Edit", "NotebookEdit", "mcp__memory__add"}),
        ("Edit", {"Edit"}),
        ("Edit|Bash", {"Edit", "Bash"}),
        ("mcp__memory__.*", {"mcp__memory__add"}),
        (".*Edit", {"Edit", "NotebookEdit"}),
        ("^Note", {"NotebookEdit"}),
    ],
)
async def test_matchers(matcher, asked):
    """Names match as a whole; anything else is a regular expression. A tool that does not match is
    allowed without starting the hook.
    """
    hook = sh("exit 2", matcher=matcher)
    for name in ("Bash", "Edit", "NotebookEdit", "mcp__memory__add"):
        decision = await hook.before_execution(ToolRequest(name=name))
        assert decision.allow is (name not in asked)
        if name not in asked:
            assert decision == Decision(True)


async def test_payloads_that_cannot_be_told_deny():
    """A payload that JSON cannot hold is denied, however deep the fault is. With an observer the
    work continues.
    """
    circle = []
    circle.append(circle)
    for args in ({1: 2}, circle, float("nan"), object()):
        payload = {"Name": "Bash", "Args": args}
        decision = await run_hooks([sh("exit 0")], "before_execution", payload)
        assert not decision.allow
        assert "hook 'guard' was not asked: " in decision.reason
        assert (await run_hooks([sh("exit 0", mode="observe")], "before_execution", payload)).allow
    long = await sh("exit 0").before_execution(ToolRequest(name="x" * 129))
    assert "a name of more than 128 characters" in long.reason


async def test_the_reason_of_a_block_hides_the_values_of_variables_and_is_bounded():
    """The reason hides the values of variables, and its length is limited."""
    hook = sh(
        "echo $TOKEN >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 2",
        env={"TOKEN": "s3cr3t-value"},
    )
    decision = await hook.before_execution(BASH)
    assert decision.reason.startswith("***\nxxx")
    assert len(decision.reason) <= 4000


async def test_wrong_arguments():
    """The error names the fault: a bad matcher, or hooks that the protocol has no event for."""
    for pattern in (" ", "|", ","):
        with pytest.raises(ConfigError, match="matcher names no tool"):
            sh("", matcher=pattern)
    for pattern in (r"^(\w+_?)+$", "(a|b)*", ".*.*.*.*x", r"(a)\1", "(?=a)b"):
        with pytest.raises(ConfigError, match="matcher could take very long"):
            sh("", matcher=pattern)
    with pytest.raises(ConfigError, match="matcher is neither names"):
        sh("", matcher="(")
    with pytest.raises(ConfigError, match="matcher must be a text"):
        sh("", matcher=3)
    with pytest.raises(ConfigError, match="protocol 'claude' has no event for provider hooks"):
        sh("", ExecProviderHook)


@pytest.mark.skipif(
    not bubblewrap_works(), reason="bwrap is not installed, or user namespaces are forbidden here"
)
async def test_in_a_sandbox(tmp_path):
    """A published hook in Python decides from inside bubblewrap."""
    program = tmp_path / "guard.py"
    program.write_text(
        "import json, sys\n"
        "data = json.load(sys.stdin)\n"
        "if 'rm -rf' in data['tool_input'].get('command', ''):\n"
        "    print('Blocked: destructive', file=sys.stderr)\n"
        "    sys.exit(2)\n"
    )
    hook = ExecToolHook(
        name="guard",
        command=sys.executable,
        args=[str(program)],
        protocol="claude",
        matcher="Bash",
        sandbox=Bubblewrap(readonly=[str(tmp_path)], bind_program=True),
    )
    assert (await hook.before_execution(BASH)).reason == "Blocked: destructive"
    assert (await hook.before_execution(ToolRequest(name="Bash", args={"command": "ls"}))).allow
