"""Hooks that change the payload run one after the other; all other hooks judge the final form."""

from __future__ import annotations

import json
import sys

import pytest

from anyspawn import ConfigError
from anyspawn.hooks import (
    ExecAgentHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookRunner,
    ProviderRequest,
    ProviderResponse,
    ToolRequest,
    ToolResponse,
    run_hooks,
)

pytestmark = pytest.mark.anyio

# A program that edits its input with one statement: `r` is the request, `s` the response.
EDIT = """
import json, sys
told = json.load(sys.stdin)
r, s = told["request"], told.get("response")
%s
print(json.dumps({"allow": True, "payload": s if s is not None else r}))
"""
SHOW = """
import json, sys
told = json.load(sys.stdin)
print(json.dumps({"allow": %s, "metadata": {sys.argv[1]: told["request"], "response": told.get("response")}}))
"""


def edits(statement, name="edit", kind=ExecToolHook, **options):
    options = {"rewrites": True} | options
    return kind(name=name, command=sys.executable, args=["-c", EDIT % statement], **options)


def shows(name, *, allow=True, kind=ExecToolHook, **options):
    return kind(name=name, command=sys.executable, args=["-c", SHOW % allow, name], **options)


def says(answer, kind=ExecToolHook, **options):
    return kind(**{"name": "h", "command": "echo", "args": [json.dumps(answer)]} | options)


async def test_each_sees_what_the_one_before_made_and_all_others_judge_the_last_form():
    """The declared order among the other hooks does not matter, and observers read the final form
    too.
    """
    hooks = [
        shows("first"),
        edits('r["Args"]["a"] += "1"', "one"),
        shows("second"),
        edits('r["Args"]["a"] += "2"', "two"),
    ]
    async with HookRunner(hooks) as runner:
        decision = await runner.run("before_execution", {"Name": "t", "Args": {"a": "0"}})
    final = {"Name": "t", "Args": {"a": "012"}}
    assert (decision.allow, decision.payload) == (True, final)
    assert (decision.metadata["first"], decision.metadata["second"]) == (final, final)
    assert list(decision.results) == ["first", "one", "second", "two"]
    assert decision.results["one"].payload == {"Name": "t", "Args": {"a": "01"}}


async def test_a_denial_of_the_last_form_counts():
    """Any hook can deny the final form. If a rewriting hook denies, no other hook is asked."""
    decision = await run_hooks(
        [shows("no", allow=False), edits('r["Args"] = {"b": 1}')], "before_execution", {"Name": "t"}
    )
    assert decision.blocks
    assert decision.metadata["no"] == {"Name": "t", "Args": {"b": 1}}
    denies = says({"allow": False, "payload": {"Name": "u"}}, name="denies", rewrites=True)
    decision = await run_hooks([denies, shows("never")], "before_execution", {"Name": "t"})
    assert (decision.hook, decision.payload, list(decision.results)) == ("denies", None, ["denies"])


async def test_a_sequential_filter_keeps_the_payload_from_those_behind(tmp_path):
    """Later hooks see the payload only if the sequential filter allows it: filters, observers and
    rewriting hooks.
    """
    seen = tmp_path / "seen"

    def behind(name, **options):
        line = f"cat >> {seen}; echo '{{\"allow\": true}}'"
        return ExecToolHook(name=name, command="sh", args=["-c", line], **options)

    others = [behind("filter"), behind("rewriter", rewrites=True), behind("o", mode="observe")]
    for allow in (False, True):
        front = shows("front", allow=allow, sequential=True)
        async with HookRunner([front, *others]) as runner:
            decision = await runner.run("before_execution", {"Name": "t"})
        assert decision.allow is allow
        assert seen.exists() is allow
    assert list(decision.results) == ["front", "filter", "rewriter"]
    assert seen.read_text().count('"Name":"t"') == 3
    changed = edits('r["Args"] = 1', "changes")
    decision = await run_hooks([front, changed], "before_execution", {"Name": "t"})
    # it was asked again after the change
    assert decision.results["front"].metadata["front"] == {"Name": "t", "Args": 1}


async def test_the_payload_stays_of_its_kind():
    """A payload class stays the same class. After a call or a tool, the payload is the response."""
    request = ToolRequest(name="t", args={"a": "secret"}, call_id="7")
    hook = edits('r["Args"]["a"] = "***"')
    decision = await hook.before_execution(request)
    assert decision.payload == ToolRequest(name="t", args={"a": "***"}, call_id="7")
    hook = edits('s["Content"] = s["Content"].replace("secret", "***")')
    response = ToolResponse(name="t", content="a secret")
    for decision in (
        await hook.after_execution(request, response),
        await run_hooks([hook], "after_execution", (request, response)),
        await run_hooks([hook], "after_execution", {"request": request, "response": response}),
    ):
        assert decision.payload == ToolResponse(name="t", content="a ***")
    model = edits('r["Model"] = "small"', kind=ExecProviderHook)
    decision = await model.before_call(ProviderRequest(model="big"))
    assert decision.payload == ProviderRequest(model="small", messages=[])
    assert (
        await edits('r["Model"] = "big"', kind=ExecProviderHook).before_call(
            ProviderRequest(model="big")
        )
    ).payload is None


async def test_a_rewrite_by_a_hook_that_may_not_is_a_denial():
    """The denial says that the hook must declare rewrites. Returning the same payload
    is allowed.
    """
    decision = await edits('r["Args"] = 1', rewrites=False).before_execution({"Name": "t"})
    assert decision.blocks
    assert "not declared to change it; set rewrites" in decision.reason
    assert (await edits("pass", rewrites=False).before_execution({"Name": "t"})).allow


@pytest.mark.parametrize(
    ("statement", "given", "words"),
    [
        ("r = [1]", {"Name": "t"}, "its payload is an array, where it was an object"),
        ('del r["Name"]', {"Name": "t"}, "its payload has no Name"),
        ('r["Name"] = 3', {"Name": "t"}, "its payload has no Name"),
        ('r["Nmae"] = 3', ToolRequest(name="t"), "ToolRequest has no 'Nmae'"),
        ('r["Name"] = 3', ToolRequest(name="t"), "its Name must be str"),
        ('del r["Name"]', ToolRequest(name="t"), "its Name must be str"),
        ("r = 3", ToolRequest(name="t"), "not an object"),
        ("r = {}", "text", "its payload is an object, where it was a string"),
    ],
)
async def test_a_payload_that_does_not_fit_is_a_failure(statement, given, words):
    """The failure denies, and names the cause."""
    decision = await edits(statement).before_execution(given)
    assert decision.blocks
    assert "hook 'edit' failed: " in decision.reason
    assert words in decision.reason


async def test_names_in_snake_case_come_beside_and_go_back():
    """A change under either spelling counts; two different ones are a contradiction."""
    given = ToolRequest(name="t", args={"a": 1})
    for statement, args in (
        ('r["args"] = {"a": 2}', {"a": 2}),
        ('r["Args"] = {"a": 2}', {"a": 2}),
        ('r["Args"] = r["args"] = {"a": 2}', {"a": 2}),
        ("pass", None),
    ):
        decision = await edits(statement, names="snake").before_execution(given)
        assert decision.allow
        assert (decision.payload and decision.payload.args) == args
    decision = await edits('r["args"], r["Args"] = 2, 3', names="snake").before_execution(given)
    assert "Args and args, and they differ" in decision.reason
    decision = await shows("it", names="snake").before_execution(given)
    assert decision.metadata["it"]["call_id"] == decision.metadata["it"]["CallID"] == ""
    assert decision.metadata["it"]["args"] == decision.metadata["it"]["Args"] == {"a": 1}


def claude(event, **said):
    return {"hookSpecificOutput": {"hookEventName": event, **said}}


BEFORE = {
    "claude": claude("PreToolUse", permissionDecision="allow", updatedInput={"command": "ls"}),
    "codex": claude("PreToolUse", permissionDecision="allow", updatedInput={"command": "ls"}),
    "gemini": {"hookSpecificOutput": {"tool_input": {"command": "ls"}}},
    "cursor": {"permission": "allow", "updated_input": {"command": "ls"}},
    "copilot": {"permissionDecision": "allow", "modifiedArgs": {"command": "ls"}},
}


@pytest.mark.parametrize("protocol", BEFORE)
async def test_arguments_in_the_protocols_of_agent_tools(protocol):
    """The changed arguments keep the spelling of the payload."""
    hook = says(BEFORE[protocol], protocol=protocol, rewrites=True)
    for given, wanted in (
        (
            ToolRequest(name="Bash", args={"command": "rm"}),
            ToolRequest(name="Bash", args={"command": "ls"}),
        ),
        (
            ToolRequest(name="Bash", args='{"command": "rm"}'),
            ToolRequest(name="Bash", args={"command": "ls"}),
        ),
        ({"Name": "Bash"}, {"Name": "Bash", "Args": {"command": "ls"}}),
        (
            {"tool_name": "Bash", "tool_input": {"command": "rm"}},
            {"tool_name": "Bash", "tool_input": {"command": "ls"}},
        ),
    ):
        assert (await hook.before_execution(given)).payload == wanted
    assert (await says(BEFORE[protocol], protocol=protocol).before_execution(given)).blocks
    same = {"Name": "Bash", "Args": {"command": "ls"}}
    assert (await says(BEFORE[protocol], protocol=protocol).before_execution(same)).allow


AFTER = {
    "claude": claude("PostToolUse", updatedToolOutput={"stdout": "***", "stderr": ""}),
    "codex": claude("PostToolUse", updatedMCPToolOutput={"stdout": "***", "stderr": ""}),
    "gemini": {"hookSpecificOutput": {"tool_output": "***"}},
    "cursor": {"updated_mcp_tool_output": "***"},
}


@pytest.mark.parametrize("protocol", AFTER)
async def test_results_in_the_protocols_of_agent_tools(protocol):
    """Text stays text, even if the tool's own format is an object."""
    request = ToolRequest(name="Bash")
    hook = says(AFTER[protocol], protocol=protocol, rewrites=True)
    decision = await hook.after_execution(request, ToolResponse(name="Bash", content="secret"))
    assert decision.payload == ToolResponse(name="Bash", content="***")
    assert (await says(AFTER[protocol], protocol=protocol).after_execution(request, "x")).blocks


async def test_the_model_of_gemini():
    """Gemini's hooks can change the request and the answer, or answer in the model's place."""
    messages = [{"role": "user", "content": "my card"}, {"role": "assistant", "content": "ok"}]
    given = ProviderRequest(model="big", messages=messages, system_prompt="be kind")
    changed = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "***"},
        {"role": "model", "content": "ok"},
    ]
    answer = {"hookSpecificOutput": {"llm_request": {"model": "small", "messages": changed}}}
    options = {"kind": ExecProviderHook, "protocol": "gemini", "rewrites": True}
    payload = (await says(answer, **options).before_call(given)).payload
    assert (payload.model, payload.system_prompt) == ("small", "be kind")
    assert payload.messages == [{"role": "user", "content": "***"}, messages[1]]

    response = {"candidates": [{"content": {"role": "model", "parts": ["no card here"]}}]}
    answer = {"hookSpecificOutput": {"llm_response": response}}
    decision = await says(answer, **options).before_call(given)
    assert (decision.blocks, decision.enforced, decision.replacement) == (
        True,
        True,
        "no card here",
    )
    said = ProviderResponse(message={"role": "assistant", "content": "my card"})
    decision = await says(answer, **options).after_call(given, said)
    assert decision.payload == ProviderResponse(
        message={"role": "assistant", "content": "no card here"}
    )
    answer = {"hookSpecificOutput": {"llm_request": {"config": {"temperature": 0}}}}
    assert (
        "'config', which anyspawn cannot change"
        in (await says(answer, **options).before_call(given)).reason
    )


async def test_a_permission_with_changed_arguments():
    """A changed input also works at an event that has no phase."""
    hook = says(
        claude("PermissionRequest", decision={"behavior": "allow", "updatedInput": {"a": 2}}),
        ExecAgentHook,
        protocol="claude",
        phases=["PermissionRequest"],
        rewrites=True,
    )
    decision = await hook.run("PermissionRequest", {"tool_name": "Bash", "tool_input": {"a": 1}})
    assert decision.payload == {"tool_name": "Bash", "tool_input": {"a": 2}}


async def test_from_a_server():
    """A server can rewrite like a process."""
    source = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    call = json.loads(line); r = call['params']['request']; r['Args'] = 1\n"
        "    result = {'allow': True, 'payload': r}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': result}), flush=True)\n"
    )
    options = {"command": sys.executable, "args": ["-c", source], "runtime": "server"}
    async with ExecToolHook(name="s", rewrites=True, **options) as hook:
        assert (await hook.before_execution({"Name": "t"})).payload == {"Name": "t", "Args": 1}
    async with ExecToolHook(name="s", **options) as hook:
        assert (await hook.before_execution({"Name": "t"})).blocks


@pytest.mark.parametrize(
    ("kind", "options"),
    [(ExecToolHook, {"mode": "observe"}), (ExecSessionHook, {})],
)
def test_hooks_whose_answer_is_not_read_cannot_rewrite(kind, options):
    """Such a hook is refused when it is made."""
    with pytest.raises(ConfigError, match="rewrites needs a filter"):
        says({}, kind, rewrites=True, **options)
