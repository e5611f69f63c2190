"""One law for the parsers of hooks' answers: an output that contains a denial, in any spelling, is
never an allow. `nox -s fuzz` runs it longer.
"""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyspawn.hooks._agents import Outcome, Place
from anyspawn.hooks._protocols import AGENTS
from anyspawn.hooks._wire import WireError, decode_decision

MESSAGES = {
    name: {
        phase: agent.message(
            event,
            {
                "request": {"Name": "Bash", "Args": {"command": "ls"}},
                "response": "out",
                "event": {"tool_name": "Bash", "prompt": "hi"},
            }
            if phase != "session_update"
            else {"event": {"prompt": "hi"}},
            Place("/project"),
        )
        for phase, event in agent.events.items()
        if event.guards
    }
    for name, agent in AGENTS.items()
}
ENDINGS = {"Stop", "SubagentStop"}  # at these events the agent itself wants to stop

DENIALS = (
    {"allow": False},
    {"allow": False, "reason": "no"},
    {"decision": "block"},
    {"decision": "deny", "reason": "no"},
    {"continue": False},
    {"permission": "deny"},
    {"permissionDecision": "deny"},
    {"behavior": "deny"},
    {"ok": False},
    *(
        {"hookSpecificOutput": {"hookEventName": event, **said}}
        for event in ("PreToolUse", "PermissionRequest", "PostToolUse")
        for said in (
            {"permissionDecision": "deny"},
            {"permissionDecision": "ask"},
            {"decision": {"behavior": "deny"}},
        )
    ),
)

words = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)
noise = st.one_of(
    words,
    st.sampled_from(
        [
            "[hook] ",
            "\x1b[31m",
            "\x1b[",
            "\ufeff",
            "\n",
            "INFO: ",
            "ok\n",
            "{}",
            "[",
            '"',
            "// ",
            "```json\n",
        ]
    ),
)


@st.composite
def denial(draw: st.DrawFn) -> str:
    """A denial as JSON in one of many spellings."""
    answer = dict(draw(st.sampled_from(DENIALS)))
    if draw(st.booleans()):
        answer[draw(words)] = draw(st.sampled_from([None, True, 1, "x", [], {}]))
    text = json.dumps(
        answer,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2])),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " : ")])),
    )
    spell = draw(st.sampled_from(["plain", "escaped", "single", "title", "bare", "list", "text"]))
    if spell == "escaped":
        for word in ("allow", "decision", "deny", "block", "permission", "continue"):
            text = text.replace(word, f"\\u{ord(word[0]):04x}{word[1:]}")
    elif spell == "single":
        text = str(answer)
    elif spell == "title":
        text = text.replace('"allow"', '"Allow"').replace('"decision"', '"Decision"')
    elif spell == "bare":
        text = text.replace('"', "")
    elif spell == "list":
        text = f"[{text}]"
    elif spell == "text":
        text = json.dumps(text)
    return text


@st.composite
def outputs(draw: st.DrawFn) -> bytes:
    """The output of a program that contains a denial."""
    text = draw(noise) + draw(denial()) + draw(noise)
    if draw(st.booleans()):
        other = json.dumps(draw(st.sampled_from([{"allow": True}, {"decision": "approve"}, {}])))
        text = draw(st.sampled_from([other + "\n" + text, text + "\n" + other, other[:-1] + text]))
    return text.encode(
        draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"]))
    )


@given(data=outputs())
def test_our_own_protocol(data: bytes) -> None:
    """An allow is a single object whose ``allow`` is true, without anything else in the output."""
    try:
        decision = decode_decision(data)
    except WireError:
        return
    assert not decision.allow


@pytest.mark.parametrize("name", AGENTS)
@given(data=outputs())
def test_protocols_of_agent_tools(name: str, data: bytes) -> None:
    """The law holds at every event that a hook can stop."""
    agent = AGENTS[name]
    for phase, message in MESSAGES[name].items():
        event = agent.events[phase]
        with contextlib.suppress(WireError):
            verdict = agent.judge(event, message, Outcome(status=0, stdout=data))
            assert not verdict.allow or event.name in ENDINGS, phase


@pytest.mark.parametrize("name", AGENTS)
@given(data=st.binary(max_size=200), status=st.sampled_from([0, 2]))
def test_any_bytes_are_judged(name: str, data: bytes, status: int) -> None:
    """A parser raises only a WireError."""
    agent = AGENTS[name]
    for phase, event in agent.events.items():
        outcome = Outcome(status=status, stdout=data, stderr=data)
        message = MESSAGES[name].get(phase, {})
        with contextlib.suppress(WireError):
            agent.judge(event, message, outcome)
