"""Every protocol is tested with outputs that its documentation does not describe. Whatever the
documentation does not allow is a denial.
"""

from __future__ import annotations

import json

import anyio
import pytest

from anyspawn.hooks import ExecToolHook, ToolRequest

pytestmark = pytest.mark.anyio

PROTOCOLS = ("exec", "claude", "codex", "gemini", "cursor", "copilot")


def claude(verdict):
    return {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": verdict,
            "permissionDecisionReason": "said so",
        }
    }


ALLOW = {
    "exec": {"allow": True, "reason": "said so"},
    "claude": claude("allow"),
    "codex": claude("allow"),
    "gemini": {"decision": "allow", "reason": "said so"},
    "cursor": {"permission": "allow"},
    "copilot": {"permissionDecision": "allow", "permissionDecisionReason": "said so"},
}
DENY = {
    "exec": {"allow": False, "reason": "said no"},
    "claude": claude("deny"),
    "codex": claude("deny"),
    "gemini": {"decision": "deny", "reason": "said no"},
    "cursor": {"permission": "deny", "user_message": "said no"},
    "copilot": {"permissionDecision": "deny", "permissionDecisionReason": "said no"},
}


def one(answer):
    return json.dumps(answer).encode()


def deep(answer, levels):
    return one(answer)[:-1] + b', "x": ' + b"[" * levels + b"]" * levels + b"}"


# Functions that make an output from the protocol's allow and its deny.
OUTPUTS = {
    "a denial": lambda allow, deny: one(deny),
    "a denial over many lines": lambda allow, deny: json.dumps(deny, indent=2).encode(),
    "a denial, status 1": lambda allow, deny: (one(deny), 1),
    "an allow, status 1": lambda allow, deny: (one(allow), 1),
    "an allow, status 2": lambda allow, deny: (one(allow), 2),
    "an allow, killed": lambda allow, deny: (one(allow), -9),
    "text before the denial": lambda allow, deny: b"checking\n" + one(deny),
    "text before the denial, in its line": lambda allow, deny: b"INFO " + one(deny),
    "text after the denial": lambda allow, deny: one(deny) + b"\ndone\n",
    "text after the allow": lambda allow, deny: one(allow) + b"\ndone\n",
    "colours around the denial": lambda allow, deny: b"\x1b[31m" + one(deny) + b"\x1b[0m",
    "colours within the denial": lambda allow, deny: one(deny).replace(b"{", b"{\x1b[1m", 1),
    "a log line in brackets before": lambda allow, deny: b"[INFO] loaded\n" + one(deny),
    "a denial in a list": lambda allow, deny: one([deny]),
    "a denial in a text": lambda allow, deny: one(json.dumps(deny)),
    "a denial in an object": lambda allow, deny: one({"result": deny}),
    "a denial beside an allow": lambda allow, deny: one({**allow, "verdict": "deny"}),
    "a byte order mark and a denial": lambda allow, deny: b"\xef\xbb\xbf" + one(deny),
    "a denial in UTF-16": lambda allow, deny: json.dumps(deny).encode("utf-16"),
    "a denial in UTF-16 without a mark": lambda allow, deny: json.dumps(deny).encode("utf-16-le"),
    "a denial in UTF-32": lambda allow, deny: json.dumps(deny).encode("utf-32"),
    "an allow in UTF-16": lambda allow, deny: json.dumps(allow).encode("utf-16"),
    "no UTF-8": lambda allow, deny: one(allow).replace(b"}", b'\xff"}', 1),
    "an allow, then a denial": lambda allow, deny: one(allow) + b"\n" + one(deny),
    "a denial, then an allow": lambda allow, deny: one(deny) + b"\n" + one(allow),
    "a denial in YAML": lambda allow, deny: b"permission: deny\n",
    "a denial in words of JSON": lambda allow, deny: b"false",
    "NaN": lambda allow, deny: one(allow)[:-1] + b', "metadata": {"x": NaN}}',
    "infinity": lambda allow, deny: one(allow)[:-1] + b', "metadata": {"x": 1e999}}',
    "10,000 digits": lambda allow, deny: (
        one(allow)[:-1] + b', "metadata": {"x": ' + b"9" * 10**4 + b"}}"
    ),
    "the same key twice": lambda allow, deny: one(deny)[:-1] + b", " + one(allow)[1:],
    "1,000 levels": lambda allow, deny: deep(allow, 1000),
    "cut off": lambda allow, deny: one(allow)[:-1],
    "a one for true": lambda allow, deny: (
        one(allow).replace(b"true", b"1").replace(b'"allow"', b"1")
    ),
    "null verdicts of other protocols": lambda allow, deny: one({**allow, "decision": "block"}),
    "a continue that is false": lambda allow, deny: one({**allow, "continue": False}),
    "another spelling": lambda allow, deny: one(
        {name.title(): value for name, value in deny.items()}
    ),
    "snake for camel": lambda allow, deny: one(
        {"permission_decision": "deny", "hook_specific_output": {}}
    ),
    "NUL bytes": lambda allow, deny: one(allow) + b"\0",
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_not_one_clear_allow_denies(protocol, output, tmp_path):
    """Anything before, after or inside a verdict denies, and so does any end but exit 0."""
    made = OUTPUTS[output](ALLOW[protocol], DENY[protocol])
    data, status = made if isinstance(made, tuple) else (made, 0)
    file = tmp_path / "out"
    file.write_bytes(data)
    end = "kill -9 $$" if status < 0 else f"exit {status}"
    hook = ExecToolHook(
        name="h", command="sh", args=["-c", f"cat >/dev/null; cat {file}; {end}"], protocol=protocol
    )
    decision = await hook.before_execution(ToolRequest(name="Bash", args={"command": "rm"}))
    assert decision.blocks
    assert decision.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_clear_verdicts(protocol):
    """A clear verdict has its meaning in each protocol."""
    for answer, allow in ((ALLOW[protocol], True), (DENY[protocol], False)):
        hook = ExecToolHook(name="h", command="echo", args=[json.dumps(answer)], protocol=protocol)
        decision = await hook.before_execution({"Name": "Bash", "Args": {}})
        assert decision.allow is allow
        assert decision.reason in {"said so", "said no", ""}
    assert decision.reason in {"said no", "said so"}
    with pytest.raises(TypeError, match=r"decision\.blocks"):
        bool(decision)
    with pytest.raises(Exception, match="denied by hook 'h'"):
        decision.check()


@pytest.mark.parametrize("protocol", ["claude", "codex"])
async def test_text_that_holds_no_verdict_is_harmless(protocol):
    """A log line is not a verdict, even with colours and brackets."""
    for text in ("[hook] checked ok", "\x1b[32mchecked\x1b[0m ok", "3 rules", ""):
        hook = ExecToolHook(name="h", command="echo", args=[text], protocol=protocol)
        assert (await hook.before_execution({"Name": "Bash"})).allow


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_limit_of_an_output(protocol):
    """An output of exactly the limit is read; one byte more is a failure."""
    data = json.dumps(ALLOW[protocol])
    for limit, allow in ((len(data), True), (len(data) - 1, False)):
        hook = ExecToolHook(
            name="h", command="printf", args=["%s", data], protocol=protocol, output_limit=limit
        )
        assert (await hook.before_execution({"Name": "Bash"})).allow is allow


AFTERWARDS = {
    "a child that holds stdout": "sleep 100 &",
    "a child that writes more": "(sleep 0.1; echo more) & wait",
    "a time-out": "sleep 100",
    "a signal": "kill -15 $$",
}


@pytest.mark.parametrize("after", AFTERWARDS)
async def test_what_happens_after_an_allow_counts(after):
    """An allow does not count if the program then fails, or may go on writing."""

    async def ask(protocol):
        code = f"echo '{json.dumps(ALLOW[protocol])}'; {AFTERWARDS[after]}"
        hook = ExecToolHook(
            name="h",
            command="sh",
            args=["-c", code],
            protocol=protocol,
            timeout=2 if "time" in after else 20,
        )
        assert (await hook.before_execution({"Name": "Bash"})).blocks, protocol

    async with anyio.create_task_group() as tasks:
        for protocol in PROTOCOLS:
            tasks.start_soon(ask, protocol)
