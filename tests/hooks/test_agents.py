"""Hooks of Codex, Gemini CLI, Cursor and GitHub Copilot CLI: their input and the meaning of their
answers, event by event.
"""

from __future__ import annotations

import json
import os

import pytest

from anyspawn import ConfigError
from anyspawn.hooks import (
    ExecAgentHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    ProviderRequest,
    ProviderResponse,
    SessionEvent,
    ToolRequest,
    ToolResponse,
)

pytestmark = pytest.mark.anyio

KINDS = {
    "before_execution": ExecToolHook,
    "after_execution": ExecToolHook,
    "before_call": ExecProviderHook,
    "after_call": ExecProviderHook,
    "session_start": ExecSessionHook,
    "session_update": ExecSessionHook,
    "session_end": ExecSessionHook,
}
TOOL = ToolRequest(name="Bash", args={"command": "ls"}, call_id="c")
SESSION = SessionEvent(session_id="s", messages=[{"role": "user", "content": "hi"}])
MODEL = ProviderRequest(
    model="m",
    system_prompt="be kind",
    messages=[{"Role": "user", "Content": "hi"}, {"Role": "assistant", "Content": "yes"}],
)
PAYLOADS = {
    "before_execution": TOOL,
    "after_execution": (TOOL, ToolResponse(name="Bash", content="out")),
    "before_call": MODEL,
    "after_call": (MODEL, ProviderResponse(message="answer")),
    "session_start": SESSION,
    "session_update": SESSION,
    "session_end": SESSION,
}


def hook(protocol, phase, script, **options):
    kind = KINDS.get(phase, ExecAgentHook)
    return kind(
        name="h", command="sh", args=["-c", script], protocol=protocol, phases=[phase], **options
    )


def says(protocol, phase, answer, **options):
    return hook(protocol, phase, f"cat >/dev/null; echo '{json.dumps(answer)}'", **options)


async def told(protocol, phase, payload, tmp_path):
    file = tmp_path / "told"
    # A hook that prints nothing allows; the file has its input.
    await hook(protocol, phase, f"cat > {file}", mode="observe").run(phase, payload)
    return json.loads(file.read_text())


LLM = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "model", "content": "yes"},
    ],
    "config": {},
}
READ = {
    ("codex", "before_execution"): {
        "hook_event_name": "PreToolUse",
        "session_id": "",
        "turn_id": "",
        "transcript_path": None,
        "model": "",
        "permission_mode": "default",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_use_id": "c",
    },
    ("codex", "after_execution"): {
        "hook_event_name": "PostToolUse",
        "tool_response": {"stdout": "out", "stderr": "", "interrupted": False, "isImage": False},
    },
    ("codex", "session_update"): {"hook_event_name": "UserPromptSubmit", "prompt": "hi"},
    ("codex", "session_start"): {"hook_event_name": "SessionStart", "source": "startup"},
    ("gemini", "before_execution"): {
        "hook_event_name": "BeforeTool",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
    },
    ("gemini", "after_execution"): {
        "hook_event_name": "AfterTool",
        "tool_response": {"llmContent": "out", "returnDisplay": "out"},
    },
    ("gemini", "before_call"): {"hook_event_name": "BeforeModel", "llm_request": LLM},
    ("gemini", "after_call"): {
        "hook_event_name": "AfterModel",
        "llm_request": LLM,
        "llm_response": {
            "candidates": [
                {"content": {"role": "model", "parts": ["answer"]}, "finishReason": "STOP"}
            ]
        },
    },
    ("gemini", "session_update"): {"hook_event_name": "BeforeAgent", "prompt": "hi"},
    ("gemini", "session_end"): {"hook_event_name": "SessionEnd", "reason": "other"},
    ("cursor", "before_execution"): {
        "hook_event_name": "preToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_use_id": "c",
        "transcript_path": None,
    },
    ("cursor", "after_execution"): {
        "hook_event_name": "postToolUse",
        "tool_output": '{"output": "out", "exitCode": 0}',
    },
    ("cursor", "session_update"): {
        "hook_event_name": "beforeSubmitPrompt",
        "prompt": "hi",
        "attachments": [],
        "session_id": "s",
    },
    ("cursor", "session_start"): {
        "hook_event_name": "sessionStart",
        "is_background_agent": False,
        "composer_mode": "agent",
    },
    ("copilot", "before_execution"): {
        "toolName": "Bash",
        "toolArgs": '{"command": "ls"}',
        "sessionId": "",
    },
    ("copilot", "after_execution"): {
        "toolResult": {"resultType": "success", "textResultForLlm": "out"}
    },
    ("copilot", "session_update"): {"prompt": "hi", "sessionId": "s"},
    ("copilot", "session_start"): {"source": "new"},
    ("copilot", "session_end"): {"reason": "complete"},
}


@pytest.mark.parametrize(("protocol", "phase"), READ)
async def test_what_a_hook_reads(protocol, phase, tmp_path):
    """The hook reads the tool's own field names."""
    read = await told(protocol, phase, PAYLOADS[phase], tmp_path)
    wanted = READ[protocol, phase]
    assert {name: read.get(name) for name in wanted} == wanted
    if "prompt" not in wanted and protocol != "copilot":
        assert "Messages" not in read
    assert not {"Name", "Args", "CallID", "SessionID"} & read.keys()


async def test_events_of_a_tools_own_go_over_as_they_are(tmp_path):
    """Events that only one tool has are passed on unchanged, with the fields that all
    events have.
    """
    read = await told("cursor", "beforeShellExecution", {"command": "ls", "cwd": "/x"}, tmp_path)
    assert (read["command"], read["cwd"], read["workspace_roots"]) == ("ls", "/x", [os.getcwd()])
    read = await told("copilot", "agentStop", {"stopReason": "end_turn"}, tmp_path)
    assert (read["stopReason"], type(read["timestamp"])) == ("end_turn", int)
    read = await told("gemini", "AfterAgent", {"prompt": "p", "prompt_response": "r"}, tmp_path)
    assert (read["prompt_response"], read["hook_event_name"]) == ("r", "AfterAgent")
    assert read["timestamp"].endswith("Z")


OWN = {"tool_name": "Bash", "tool_input": {"command": "rm"}, "command": "rm"}
ANSWERS = [
    ("codex", "before_execution", {}, True),
    ("codex", "before_execution", {"decision": "block", "reason": "no"}, False),
    ("codex", "before_execution", {"continue": False}, False),
    ("codex", "before_execution", {"reason": "no"}, False),
    ("codex", "session_update", {"decision": "block", "reason": "no"}, False),
    ("codex", "Stop", {"decision": "block", "reason": "go on"}, False),
    ("codex", "Stop", {"continue": False, "stopReason": "enough"}, True),
    (
        "codex",
        "PermissionRequest",
        {
            "hookSpecificOutput": {
                "hookEventName": "PermissionRequest",
                "decision": {"behavior": "allow"},
            }
        },
        True,
    ),
    (
        "codex",
        "PermissionRequest",
        {
            "hookSpecificOutput": {
                "hookEventName": "PermissionRequest",
                "decision": {"behavior": "allow", "updatedPermissions": [1]},
            }
        },
        False,
    ),
    ("codex", "PermissionRequest", {}, False),
    ("gemini", "before_execution", {"decision": "block", "reason": "no"}, False),
    ("gemini", "before_execution", {"decision": "ask"}, False),
    ("gemini", "before_execution", {"continue": False, "stopReason": "no"}, False),
    ("gemini", "before_execution", {"systemMessage": "hello"}, True),
    ("gemini", "session_start", {"decision": "deny"}, False),
    (
        "gemini",
        "BeforeToolSelection",
        {"hookSpecificOutput": {"toolConfig": {"mode": "ANY"}}},
        True,
    ),
    ("gemini", "BeforeToolSelection", {"decision": "deny"}, False),
    ("gemini", "AfterAgent", {"decision": "deny", "reason": "again"}, False),
    ("gemini", "before_call", {"decision": "deny", "reason": "no"}, False),
    ("cursor", "beforeShellExecution", {"permission": "deny", "agent_message": "no"}, False),
    ("cursor", "beforeShellExecution", {"permission": "ask"}, False),
    ("cursor", "beforeShellExecution", {"permission": "allow"}, True),
    ("cursor", "beforeShellExecution", {"permission": "allow", "continue": False}, False),
    ("cursor", "beforeShellExecution", {"permission": "alow"}, False),
    ("cursor", "beforeShellExecution", {"permission": "allow", "updated_input": {}}, False),
    ("cursor", "session_update", {"continue": False, "user_message": "no"}, False),
    ("cursor", "session_update", {"continue": True}, True),
    ("cursor", "stop", {"followup_message": "run the tests"}, False),
    ("cursor", "stop", {}, True),
    ("cursor", "afterFileEdit", {"permission": "deny"}, False),
    ("copilot", "before_execution", {"permissionDecision": "ask"}, False),
    ("copilot", "before_execution", {"decision": "block"}, False),
    ("copilot", "before_execution", {"behavior": "deny"}, False),
    ("copilot", "permissionRequest", {"behavior": "allow"}, True),
    ("copilot", "permissionRequest", {"behavior": "allow", "interrupt": True}, False),
    ("copilot", "permissionRequest", {"behavior": "deny", "message": "no"}, False),
    ("copilot", "permissionRequest", {}, False),
    ("copilot", "agentStop", {"decision": "block", "reason": "go on"}, False),
    ("copilot", "agentStop", {"decision": "allow"}, True),
    ("copilot", "session_update", {"permissionDecision": "deny"}, False),
]


@pytest.mark.parametrize(("protocol", "phase", "answer", "allow"), ANSWERS)
async def test_what_an_answer_means(protocol, phase, answer, allow):
    """An answer means what the tool says. If the tool would ask a person, or does not know a key,
    it is a denial.
    """
    decision = await says(protocol, phase, answer).run(phase, PAYLOADS.get(phase, OWN))
    assert decision.allow is allow
    assert allow or decision.reason


STATUS_2 = [
    ("codex", "before_execution", False),
    ("codex", "session_start", False),
    ("gemini", "before_execution", False),
    ("gemini", "Notification", False),
    ("cursor", "beforeReadFile", False),
    ("cursor", "session_update", False),
    ("cursor", "afterFileEdit", False),
    ("copilot", "before_execution", False),
    ("copilot", "permissionRequest", False),
]


@pytest.mark.parametrize(("protocol", "phase", "allow"), STATUS_2)
async def test_status_2(protocol, phase, allow):
    """By default status 2 always denies, as a verdict or as a failure. With the tool's own policy
    it denies only at the events where the tool says so.
    """
    payload = PAYLOADS.get(phase, OWN)
    decision = await hook(protocol, phase, "echo because >&2; exit 2").run(phase, payload)
    assert decision.allow is allow
    assert "because" in decision.reason
    as_tool = hook(protocol, phase, "echo because >&2; exit 2", on_failure=f"as_{protocol}")
    stops = phase in {"before_execution", "beforeReadFile", "session_update", "permissionRequest"}
    stops = stops and (protocol, phase) != ("copilot", "before_execution")
    assert (await as_tool.run(phase, payload)).allow is not stops


async def test_failures_as_cursor_has_them():
    """An unreadable answer blocks an event that asks for a permission; other failures do not."""
    for script, allow in (("echo '{oops'", False), ("exit 1", True), ("sleep 9", True)):
        guard = hook("cursor", "beforeShellExecution", script, on_failure="as_cursor", timeout=0.5)
        assert (await guard.run("beforeShellExecution", OWN)).allow is allow
    with pytest.raises(ConfigError, match="on_failure 'as_claude' is not of protocol 'cursor'"):
        hook("cursor", "stop", "", on_failure="as_claude")


CONTEXT = [
    ("codex", "session_start", "echo text", ("text",)),
    (
        "gemini",
        "session_start",
        'echo \'{"hookSpecificOutput":{"additionalContext":"c"}}\'',
        ("c",),
    ),
    ("cursor", "session_start", 'echo \'{"additional_context":"c","env":{"A":"1"}}\'', ("c",)),
    ("copilot", "session_start", 'echo \'{"additionalContext":"c"}\'', ("c",)),
    ("copilot", "session_start", "echo just text", ()),
    ("gemini", "session_start", "echo just text", ()),
]


@pytest.mark.parametrize(("protocol", "phase", "script", "context"), CONTEXT)
async def test_context_for_the_model(protocol, phase, script, context):
    """Context is kept if the tool accepts it at that event."""
    decision = await hook(protocol, phase, script).run(phase, SESSION)
    assert (decision.allow, decision.context) == (True, context)


MATCHERS = [
    ("codex", "before_execution", "Bash|Edit", {"Bash": True, "BashOutput": False}),
    ("gemini", "before_execution", "read_.*", {"read_file": True, "write_file": False}),
    ("gemini", "before_execution", "read", {"read_file": True, "write_file": False}),
    ("cursor", "before_execution", "Shell", {"Shell": True, "Shell2": True, "Read": False}),
    ("copilot", "before_execution", "bash|edit", {"bash": True, "bash2": False}),
]


@pytest.mark.parametrize(("protocol", "phase", "matcher", "names"), MATCHERS)
async def test_matchers(protocol, phase, matcher, names):
    for name, asked in names.items():
        guard = hook(protocol, phase, "echo no >&2; exit 2", matcher=matcher)
        assert (await guard.run(phase, ToolRequest(name=name))).blocks is asked


async def test_a_matcher_of_a_command():
    """Cursor matches against the command. If the command is too long to match, the hook
    is asked.
    """
    guard = hook("cursor", "beforeShellExecution", "exit 2", matcher="git push|rm ")
    for command, asked in (("git push", True), ("ls", False), ("ls " + "x" * 500, True)):
        decision = await guard.run("beforeShellExecution", {"command": command})
        assert decision.blocks is asked


async def test_after_a_tool_of_gemini():
    """The reason of a denial replaces the tool's result."""
    answer = {"decision": "deny", "reason": "hidden"}
    decision = await says("gemini", "after_execution", answer).run(
        "after_execution", PAYLOADS["after_execution"]
    )
    assert (decision.blocks, decision.replacement) == (True, "hidden")


@pytest.mark.parametrize("protocol", ["claude", "codex", "gemini", "cursor", "copilot"])
@pytest.mark.parametrize(
    "payload",
    [
        {"Name": "Bash", "Args": {"command": "rm"}, "tool_name": "Read"},
        {"Name": "Bash", "Args": {"command": "rm"}, "tool_input": {"command": "ls"}},
        {"Name": "Bash", "Args": ["rm"]},
        {"Name": "Bash", "Args": "rm -rf /"},
        {"Name": "Bash", "Args": '["rm"]'},
        {"Name": "Bash", "Args": '{"command": "ls", "command": "rm"}'},
        {"Name": "Bash", "Args": 3},
        {"Name": ""},
        [],
    ],
)
async def test_payloads_that_could_be_read_in_two_ways_deny(protocol, payload):
    """Ambiguous payloads are denied: whoever writes them could choose which reading the hook
    checks.
    """
    decision = await hook(protocol, "before_execution", "exit 0").run("before_execution", payload)
    assert decision.blocks
    assert "hook 'h' was not asked: " in decision.reason


PROMPTS = [
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
    ([{"Role": "user", "Content": "a"}], "a"),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}, "c"]}], "a\nb\nc"),
    ([{"role": "user", "parts": [{"text": "a"}]}], "a"),
    ([{"role": "user", "content": [{"type": "image"}]}], None),
    ([{"role": "assistant", "content": "a"}], None),
    ([], ""),
]


@pytest.mark.parametrize("protocol", ["claude", "codex", "gemini", "cursor", "copilot"])
@pytest.mark.parametrize(("messages", "prompt"), PROMPTS)
async def test_the_users_prompt(protocol, messages, prompt, tmp_path):
    """The prompt is the last message of the user with all its parts. If it has no readable text,
    the hook denies.
    """
    event = SessionEvent(messages=messages)
    if prompt is None:
        decision = await hook(protocol, "session_update", "exit 0").run("session_update", event)
        assert decision.blocks
    else:
        read = await told(protocol, "session_update", event, tmp_path)
        assert read["prompt"] == prompt
