"""Settings files of Claude Code as people write them."""

from __future__ import annotations

import json
import logging
import os

import anyio
import pytest

from anyspawn import Bubblewrap, ConfigError
from anyspawn.hooks import ExecToolHook, HookRunner, SessionEvent, ToolRequest
from machine import bubblewrap_works

pytestmark = pytest.mark.anyio


def command(line, **fields):
    return {"type": "command", "command": line, **fields}


def group(*handlers, **fields):
    return {**fields, "hooks": list(handlers)}


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".claude" / "hooks").mkdir(parents=True)
    return tmp_path


def write(project, hooks, name="settings.json", **fields):
    file = project / ".claude" / name
    file.write_text(json.dumps({"hooks": hooks, **fields}))
    return file


GUARD = """#!/bin/sh
cmd=$(sed 's/.*"command":"\\([^"]*\\)".*/\\1/')
case "$cmd" in *"rm -rf"*) echo "Blocked by hook: $cmd" >&2; exit 2;; esac
"""


async def test_a_file_with_a_dozen_hooks(project):
    """Shell lines, scripts by placeholder, matchers, context, background hooks and further events
    all work as in Claude Code.
    """
    guard = project / ".claude" / "hooks" / "guard.sh"
    guard.write_text(GUARD)
    guard.chmod(0o755)
    log = project / "log"
    file = write(
        project,
        {
            "PreToolUse": [
                group(command('"$CLAUDE_PROJECT_DIR"/.claude/hooks/guard.sh'), matcher="Bash"),
                group(
                    command("${CLAUDE_PROJECT_DIR}/.claude/hooks/guard.sh", args=[], timeout=5),
                    matcher="Edit|Write",
                ),
                group(
                    command("echo 'no pushes' >&2; exit 2", **{"if": "Bash(git push *)"}),
                    matcher="Bash",
                ),
            ],
            "PostToolUse": [group(command(f"pwd >> {log}", **{"async": True}), matcher="Write")],
            "UserPromptSubmit": [
                group(command("echo branch: main"), matcher="ignored here"),
                group(
                    command(
                        'grep -q secret && { echo \'{"decision":"block","reason":"a secret"}\'; }; true'
                    )
                ),
            ],
            "SessionStart": [
                group(command("echo first"), matcher="startup"),
                group(command("echo never"), matcher="resume"),
                group(
                    command(
                        'echo \'{"hookSpecificOutput":{"hookEventName":"SessionStart","additionalContext":"second"}}\''
                    )
                ),
            ],
            "Stop": [group(command('echo \'{"decision":"block","reason":"run the tests"}\''))],
            "Notification": [group(command(f"cat >> {log}"), matcher="idle_prompt")],
        },
        statusLine={"type": "command"},
        permissions={"allow": ["Bash"]},
    )

    async def bash(line):
        return await hooks.run("before_execution", ToolRequest(name="Bash", args={"command": line}))

    async with HookRunner.from_claude_settings(file) as hooks:
        assert [hook.name for hook in hooks][:4] == [
            "PreToolUse:1",
            "PreToolUse:2",
            "PreToolUse:3",
            "PostToolUse:1",
        ]
        assert hooks["PreToolUse:1"].timeout == 600
        assert hooks["PreToolUse:2"].timeout == 5
        assert hooks["UserPromptSubmit:1"].timeout == 30
        assert (await bash("ls -l")).allow
        assert (await bash("rm -rf /")).reason == "Blocked by hook: rm -rf /"
        assert (await bash("cd /x && FOO=1 git push --force")).reason == "no pushes"
        write_call = ToolRequest(name="Write", args={"command": "rm -rf"})
        assert (await hooks.run("before_execution", write_call)).hook == "PreToolUse:2"
        assert (await hooks.run("before_execution", ToolRequest(name="Read"))).allow
        start = await hooks.run("session_start", SessionEvent(session_id="s"))
        assert start.context == ("first", "second")
        message = SessionEvent(messages=[{"role": "user", "content": "tell me"}])
        assert (await hooks.run("session_update", message)).context == ("branch: main",)
        parts = [{"type": "image"}, {"type": "text", "text": "my secret"}]
        message = SessionEvent(
            messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": "ok"}]
        )
        assert (await hooks.run("session_update", message)).reason == "a secret"
        stop = await hooks.run("Stop", {"stop_hook_active": False})
        assert (stop.blocks, stop.reason) == (True, "run the tests")
        for kind in ("auth_success", "idle_prompt"):
            await hooks.run("Notification", {"notification_type": kind, "message": kind})
        told = json.loads(log.read_text())
        assert (told["message"], told["cwd"]) == ("idle_prompt", str(project))
        log.unlink()
        response = (ToolRequest(name="Write"), "done")
        assert (await hooks.run("after_execution", response)).allow
        with anyio.fail_after(30):
            while not log.exists() or not log.read_text():
                await anyio.sleep(0.01)
    assert log.read_text() == f"{project}\n"


async def test_files_are_merged_as_there(project, caplog):
    """The hooks of all files are merged, and duplicates removed. The last file decides about
    disabling, except for an administrator's hooks.
    """
    deny = {"PreToolUse": [group(command("exit 2"))]}
    other = {"PreToolUse": [group(command("exit 2")), group(command("true"), matcher="Edit")]}
    user, own = write(project, deny, "user.json"), write(project, other)
    assert len(HookRunner.from_claude_settings([user, own]).hooks) == 2
    off = write(project, {}, "settings.local.json", disableAllHooks=True)
    on = write(project, {}, "on.json", disableAllHooks=False)
    boss = write(project, {"Stop": [group(command("true"))]}, "managed.json")
    assert HookRunner.from_claude_settings([user, own, off]).hooks == ()
    assert len(HookRunner.from_claude_settings([user, off, on]).hooks) == 1
    only = HookRunner.from_claude_settings([user, off], managed=[boss]).hooks
    assert [hook.name for hook in only] == ["Stop:1"]
    alone = write(project, {}, "alone.json", allowManagedHooksOnly=True)
    assert HookRunner.from_claude_settings(user, managed=[alone]).hooks == ()
    assert HookRunner.from_claude_settings(user, managed=[off, boss]).hooks == ()


async def test_hooks_that_are_no_programs(project, caplog):
    """Hooks that are not programs are refused with their place in the file, or skipped and logged
    with others="skip".
    """
    mixed = {"PreToolUse": [group({"type": "prompt", "prompt": "x"}, command("exit 2"))]}
    file = write(project, mixed)
    with pytest.raises(
        ConfigError, match=r"hooks\.PreToolUse\[0\]\.hooks\[0\] is of type 'prompt'"
    ):
        HookRunner.from_claude_settings(file)
    with caplog.at_level(logging.WARNING, "anyspawn"):
        runner = HookRunner.from_claude_settings(file, others="skip")
    assert [hook.name for hook in runner] == ["PreToolUse:1"]
    assert "'prompt', which is not a program, and was passed over" in caplog.text


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ({"PreToolUs": []}, "there is no such event; did you mean 'PreToolUse'?"),
        ({"PreToolUse": {}}, r"hooks\.PreToolUse must be a list"),
        ({"PreToolUse": [{"matchr": "x", "hooks": []}]}, "unknown key 'matchr'"),
        ({"PreToolUse": [group({"command": "x"})]}, "type must be 'command', not None"),
        ({"PreToolUse": [group(command("x", timout=1))]}, "unknown key 'timout'"),
        ({"PreToolUse": [group(command("x", timeout="1"))]}, "timeout must be a number"),
        ({"PreToolUse": [group(command("x", timeout=0))]}, "timeout must be a number"),
        ({"PreToolUse": [group(command("x", shell="powershell"))]}, "shell must be 'bash'"),
        ({"PreToolUse": [group(command("x"), matcher="Bash(rm *)")]}, "permission rules"),
        ({"PreToolUse": [group(command("x", **{"if": "Bash(rm"}))]}, "not a permission rule"),
        ({"Stop": [group(command("x", **{"if": "Bash(rm *)"}))]}, "would never run"),
        ({"PreToolUse": [group(command("${CLAUDE_PLUGIN_ROOT}/x", args=[]))]}, "a plugin's"),
        ({"PreToolUse": [group(command(""))]}, None),
    ],
)
async def test_what_cannot_be_done_is_refused(project, hooks, words):
    """The error names the place; nothing in a file is ignored silently."""
    file = write(project, hooks)
    if words is None:
        assert len(HookRunner.from_claude_settings(file).hooks) == 1
        return
    with pytest.raises(ConfigError, match=words) as caught:
        HookRunner.from_claude_settings(file)
    assert str(file) in str(caught.value)


async def test_a_file_that_is_no_json(project):
    """The error says where the file is not JSON."""
    file = project / ".claude" / "settings.json"
    file.write_text('{"hooks": {},}')
    with pytest.raises(
        ConfigError, match=r"settings\.json: the file is not one JSON object.*line 1"
    ):
        HookRunner.from_claude_settings(file)
    file.write_text('{"hooks": {}, "hooks": {}}')
    with pytest.raises(ConfigError, match="comes twice in the file"):
        HookRunner.from_claude_settings(file)


FAILURES = {
    "status 1": "exit 1",
    "a missing program": "no-such-program-here",
    "a time-out": "sleep 100",
    "JSON that cannot be read": "echo '{oops'",
    "an unknown key": 'echo \'{"verdict": "no"}\'',
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_the_failure_policies(project, failure):
    """By default failures deny. With Claude Code's policy the work continues, unless the hook says
    block.
    """
    handler = command(FAILURES[failure], timeout=0.3 if "time" in failure else 30)
    file = write(project, {"PreToolUse": [group(handler)]})
    for policy, blocks, allow in (
        ("deny", "continue", False),
        ("as_claude", "continue", True),
        ("as_claude", "block", False),
    ):
        file = write(project, {"PreToolUse": [group({**handler, "onFailure": blocks})]})
        async with HookRunner.from_claude_settings(file, on_failure=policy) as hooks:
            decision = await hooks.run("before_execution", {"Name": "Bash"})
        assert decision.allow is allow
        assert decision.results["PreToolUse:1"].reason
    denial = write(project, {"PreToolUse": [group(command("exit 2"))]})
    async with HookRunner.from_claude_settings(denial, on_failure="as_claude") as hooks:
        assert (await hooks.run("before_execution", {"Name": "Bash"})).blocks


async def test_rewrites_are_by_name(project):
    """The application decides by name which hooks may change a tool's input."""
    answer = {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "allow",
            "updatedInput": {"a": 2},
        }
    }
    file = write(project, {"PreToolUse": [group(command(f"echo '{json.dumps(answer)}'"))]})
    for rewrites, allow in ((False, False), (True, True), (["PreToolUse:1"], True)):
        async with HookRunner.from_claude_settings(file, rewrites=rewrites) as hooks:
            decision = await hooks.run("before_execution", {"Name": "t", "Args": {"a": 1}})
        assert (decision.allow, decision.payload) == (
            allow,
            {"Name": "t", "Args": {"a": 2}} if allow else None,
        )


@pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
async def test_in_a_sandbox_the_project_is_what_is_there(project):
    """The project's folder must be visible inside; the variable and the cwd field name it there."""
    file = write(
        project,
        {
            "PreToolUse": [
                group(
                    command(
                        'cd "$CLAUDE_PROJECT_DIR" && [ -d .claude ] && grep -q "\\"cwd\\":\\"$PWD\\""'
                        " && ! touch x 2>/dev/null && echo seen >&2 && exit 2"
                    )
                )
            ]
        },
    )
    for binds in ([project], {project: "/srv/project"}, [project.parent]):
        box = Bubblewrap(readonly=binds)
        async with HookRunner.from_claude_settings(file, sandbox=box) as hooks:
            assert (await hooks.run("before_execution", {"Name": "Bash"})).reason == "seen"
    with pytest.raises(ConfigError, match="add readonly="):
        HookRunner.from_claude_settings(file, sandbox=Bubblewrap())
    hook = ExecToolHook(
        name="h",
        command="sh",
        args=["-c", 'grep -q "\\"cwd\\":\\"$PWD\\"" && [ "$PWD" = "$CLAUDE_PROJECT_DIR" ]'],
        protocol="claude",
        sandbox=Bubblewrap(),
    )
    assert (await hook.before_execution({"Name": "Bash"})).allow


CONDITIONS = [
    ("Bash(git *)", "FOO=bar git push", True),
    ("Bash(git *)", "npm test && git push", True),
    ("Bash(git *)", "git", True),
    ("Bash(git:*)", "git push", True),
    ("Bash(git *)", "npm test", False),
    ("Bash(rm *)", "echo $(rm -rf /)", True),
    ("Bash(rm *)", "echo `rm -rf /`", True),
    ("Bash(rm *)", "echo $(date)", False),
    ("Bash(rm *)", "'rm' -rf /", True),
    ("Bash(rm *)", "r\\m -rf /", True),
    ("Bash(rm *)", "echo 'unbalanced; rm", True),
    ("Bash(git push *)", "echo $(date)", True),
    ("Bash(git push *)", "git status", False),
    ("Bash", "anything", True),
    ("Read", "anything", False),
]


@pytest.mark.parametrize(("rule", "line", "asked"), CONDITIONS)
async def test_the_rule_that_narrows_a_hook(rule, line, asked):
    """Rules work as in Claude Code's documentation; in doubt the hook is asked."""
    hook = ExecToolHook(name="h", command="sh", args=["-c", "exit 2"], protocol="claude", when=rule)
    decision = await hook.before_execution({"Name": "Bash", "Args": {"command": line}})
    assert decision.blocks is asked


@pytest.mark.parametrize(
    ("rule", "path", "asked"),
    [
        ("Edit(*.ts)", "src/a.ts", True),
        ("Edit(*.ts)", "src/a.py", False),
        ("Edit(src/**)", "src/deep/a.py", True),
        ("Edit(src/**)", "lib/src/a.py", False),
        ("Edit(**/src/**)", "lib/src/a.py", True),
        ("Edit(~/x)", "lib/a.py", True),
    ],
)
async def test_the_rule_of_a_file(rule, path, asked):
    """A rule matches the file's path relative to the project."""
    hook = ExecToolHook(name="h", command="sh", args=["-c", "exit 2"], protocol="claude", when=rule)
    told = {"file_path": os.path.join(os.getcwd(), path)}
    decision = await hook.before_execution({"Name": "Edit", "Args": told})
    assert decision.blocks is asked
