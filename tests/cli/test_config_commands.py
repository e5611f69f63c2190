"""`anyspawn hook run`, `check`, `schema` and `doctor` as users run them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

import warm
from machine import bubblewrap_works

CLI = [sys.executable, "-m", "anyspawn"]
CONFIG = """apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  hooks:
    allow: {command: sh, args: [-c, 'echo "{\\"allow\\": true, \\"metadata\\": {\\"a\\": 1}}"'], hook: tool, phases: [before_execution]}
    deny: {command: sh, args: [-c, 'cat >&2; exit 1'], hook: tool}
    enforced: {command: sh, args: [-c, 'echo "{\\"allow\\": false, \\"enforced\\": true}"'], hook: provider, phases: [before_call]}
    session: {command: sh, args: [-c, 'exit 1'], hook: session, phases: [session_start]}
"""


def cli(*args, **options):
    return warm.cli(*args, **{"stdin": b"{}", **options})


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text(CONFIG)
    return str(file)


@pytest.mark.parametrize(
    ("name", "status", "allow"),
    [("allow", 0, True), ("deny", 3, False), ("enforced", 3, False), ("session", 3, False)],
)
def test_hook_run(config, name, status, allow):
    """The decision is one JSON object, and the exit status says whether the work may continue."""
    phase = ["--phase", "before_execution"] if name == "deny" else []
    done = cli("hook", "run", config, name, *phase, stdin=b'{"Name": "x"}')
    assert (done.returncode, done.stderr) == (status, b"")
    decision = json.loads(done.stdout)
    assert (decision["allow"], decision["hook"]) == (allow, name)
    assert set(decision) == {"allow", "reason", "enforced", "metadata", "hook"}
    if name == "allow":
        assert decision["metadata"] == {"a": 1}
    if name == "deny":
        assert (
            '{"hook":"tool","phase":"before_execution","request":{"Name":"x"}}'
            in decision["reason"]
        )


TOOLS = """apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  tools:
    search: {command: sh, args: [-c, 'echo "{\\"result\\": $(cat)}"']}
    later: {command: echo, args: ['{"pending": {"reason": "approval"}}']}
    broken: {command: echo, args: ['{"error": "no net"}']}
    failing: {command: sh, args: [-c, 'echo why >&2; exit 5']}
    noise: {command: echo, args: [hello]}
"""


@pytest.mark.parametrize(
    ("name", "status", "told", "said"),
    [
        ("search", 0, {"result": {"args": {"q": "x"}}}, b""),
        ("later", 0, {"pending": {"reason": "approval", "message": ""}}, b""),
        ("broken", 3, {"error": "no net"}, b""),
        ("failing", 4, None, b"'sh' exited with status 5; stderr: why"),
        ("noise", 4, None, b"tool 'noise' failed: its answer is not one JSON object"),
        ("nope", 2, None, b"no tool that is a program is called 'nope' (there are: search"),
    ],
)
def test_tool_run(tmp_path, name, status, told, said):
    """The answer is one JSON object. A tool that fails has another status than one that answers
    with an error.
    """
    file = tmp_path / "agent.yaml"
    file.write_text(TOOLS)
    done = cli("tool", "run", str(file), name, stdin=b'{"q": "x"}')
    assert done.returncode == status
    assert said in done.stderr
    assert (json.loads(done.stdout) if done.stdout else None) == told


def test_hook_run_with_settings_of_claude_code(tmp_path):
    """All hooks of an event are asked, by the event's own name or by the phase's."""
    file = tmp_path / "settings.json"
    line = "grep -q 'rm x' && { echo not that >&2; exit 2; }; true"
    hooks = [{"matcher": "Bash", "hooks": [{"type": "command", "command": line}]}]
    context = [{"hooks": [{"type": "command", "command": "echo branch: main"}]}]
    file.write_text(json.dumps({"hooks": {"PreToolUse": hooks, "SessionStart": context}}))
    options = ("hook", "run", "--claude-settings", str(file), "--phase")
    told = b'{"tool_name": "Bash", "tool_input": {"command": "rm x"}}'
    for phase in ("PreToolUse", "before_execution"):
        done = cli(*options, phase, stdin=told)
        assert (done.returncode, json.loads(done.stdout)["reason"]) == (3, "not that")
    assert cli(*options, "PreToolUse", stdin=told.replace(b"rm x", b"ls")).returncode == 0
    assert json.loads(cli(*options, "SessionStart").stdout)["context"] == ["branch: main"]
    done = cli(*options, "PreTooluse")
    assert (done.returncode, b"did you mean 'PreToolUse'?" in done.stderr) == (2, True)
    file.write_text("{")
    done = cli(*options, "Stop")
    assert (done.returncode, b"settings.json: the file" in done.stderr) == (1, True)
    for args in ((str(file), *options[2:4]), (str(file),), ()):
        assert cli("hook", "run", *args).returncode == 2


def test_hook_run_with_a_response(config):
    """The payload of an after phase has both the request and the response."""
    done = cli(
        "hook",
        "run",
        config,
        "deny",
        "--phase",
        "after_execution",
        stdin=b'{"request": 1, "response": 2}',
    )
    assert done.returncode == 3
    assert '"request":1,"response":2' in json.loads(done.stdout)["reason"]


@pytest.mark.parametrize(
    ("args", "stdin", "message"),
    [
        (["alow"], b"{}", "no hook is called 'alow' (there are: allow, deny, enforced, session)"),
        (
            ["deny"],
            b"{}",
            "is asked at more than one phase; choose with --phase (its phases: before_execution, after",
        ),
        (
            ["allow", "--phase", "after_execution"],
            b"{}",
            "is not asked at 'after_execution' (its phases: before_execution)",
        ),
        (["allow"], b"{", "stdin is not valid JSON: Expecting property name"),
        (["allow"], b"", "stdin is not valid JSON"),
        (["allow"], b"\xff", "stdin is not valid JSON"),
        (
            ["deny", "--phase", "after_execution"],
            b"{}",
            "payload of after_execution must be a tuple (request, response)",
        ),
    ],
)
def test_hook_run_wrong_usage(config, args, stdin, message):
    """Wrong usage gives one line on stderr, status 2, and nothing on stdout."""
    done = cli("hook", "run", config, *args, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_hook_run_without_stdin(config):
    """A closed stdin is the same as an empty one."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *CLI, "hook", "run", config, "allow"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"stdin is not valid JSON" in done.stderr


def test_hook_run_with_a_wrong_configuration(tmp_path):
    """The problems of the configuration are printed, with another status than a denial."""
    file = tmp_path / "bad.yaml"
    file.write_text(CONFIG.replace("hook: session", "hook: sesion"))
    done = cli("hook", "run", str(file), "allow")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"bad.yaml:8:50: spec.hooks.session.hook: must be one of" in done.stderr
    assert cli("hook", "run", str(tmp_path / "none.yaml"), "allow").returncode == 2


TRACED = """apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  hooks:
    redact: {command: sed, args: ['s/.*/{"allow":true,"payload":{"Name":"x","Args":{"t":"[card]"}}}/'], hook: tool, phases: [before_execution], rewrites: true}
    guard: {command: sh, args: [-c, 'grep -q card && echo "{\\"allow\\":false,\\"reason\\":\\"no\\"}"'], hook: tool}
    slow: {command: sleep, args: ['60'], hook: tool, timeout_ms: 90000}
    other: {command: "true", hook: provider, phases: [before_call]}
    matched: {command: "true", hook: tool, protocol: claude, matcher: Bash}
    watch: {command: "true", hook: tool, mode: observe}
"""


def test_hook_trace(tmp_path):
    """Each hook has a row: whether it was asked, why not, where, how long, and its verdict. A
    changed payload is shown as a diff.
    """
    file = tmp_path / "agent.yaml"
    file.write_text(TRACED)
    asked = ("hook", "trace", str(file), "before_execution")
    told = b'{"Name": "x", "Args": {"t": "4111"}}'
    done = cli(*asked, "--json", stdin=told)
    assert (done.returncode, done.stderr) == (3, b"")
    said = json.loads(done.stdout)
    rows = {row["hook"]: row for row in said["hooks"]}
    assert {name: row.get("verdict") for name, row in rows.items()} == {
        "redact": "allow",
        "guard": "deny",
        "slow": "ended",
        "other": None,
        "matched": None,
        "watch": "told",
    }
    assert [name for name, row in rows.items() if row["asked"]] == [
        "redact",
        "guard",
        "slow",
        "watch",
    ]
    assert rows["other"]["why"] == "it is asked at before_call"
    assert rows["matched"]["why"] == "its matcher leaves this payload out"
    assert rows["redact"]["before"]["Args"] == {"t": "4111"}
    assert rows["redact"]["after"]["Args"] == {"t": "[card]"}
    assert all(row["sandbox"] == "direct" for row in rows.values())
    assert 0 < rows["guard"]["seconds"] < 30
    assert said["decision"] == {"allow": False, "blocks": True, "hook": "guard", "reason": "no"}
    lines = cli(*asked, stdin=told).stdout.decode().splitlines()
    assert lines[0].startswith("redact  allow  direct  ")
    assert '  -    "t": "4111"' in lines
    assert '  +    "t": "[card]"' in lines
    assert lines[-1] == "denied by guard: no"
    done = cli("hook", "trace", str(file), "before_executon", stdin=told)
    assert (done.returncode, b"did you mean 'before_execution'?" in done.stderr) == (2, True)


def test_check(config, tmp_path):
    """Each problem is a line that begins with its place, without colours if the output is not a
    terminal.
    """
    done = cli("check", config)
    assert (done.returncode, done.stdout.decode()) == (0, f"{config}: ok (0 sandboxes, 4 hooks)\n")
    file = tmp_path / "bad.yaml"
    file.write_text(
        CONFIG.replace("hook: session", "hook: sesion").replace("hook: provider", "hok: provider")
    )
    done = cli("check", str(file))
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 3
    assert all(re.match(re.escape(str(file)) + r":\d+:\d+: spec\.hooks\.", line) for line in lines)
    missing = cli("check", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    assert b"cannot read" in missing.stderr


def test_check_warns_and_takes_several_files(config, tmp_path):
    """A warning has its place and does not change the status. The status is the worst
    of all files.
    """
    odd, bad = tmp_path / "odd.yaml", tmp_path / "bad.yaml"
    (tmp_path / "text").write_text("true\n")
    commands = ("python3 ./x.py", "./none.py", "nonesuch-program", "./text", "sh")
    hooks = "".join(f"    h{n}: {{command: {c}, hook: tool}}\n" for n, c in enumerate(commands))
    odd.write_text(CONFIG.partition("    allow")[0] + hooks)
    bad.write_text(CONFIG.partition("    allow")[0] + "    guard: {hook: toool}\n")
    done = cli("check", str(odd), config)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert [line.removeprefix(f"{odd}:") for line in lines[:4]] == [
        (
            "5:5: warning: spec.hooks.h0: command: it is one name, with spaces in it; put arguments "
            "in args"
        ),
        "6:5: warning: spec.hooks.h1: command: it does not exist in the configuration's folder",
        "7:5: warning: spec.hooks.h2: command: it does not exist on PATH",
        "8:5: warning: spec.hooks.h3: command: it is not a program; make it executable (chmod +x)",
    ]
    assert [line.partition(": ")[2] for line in lines[4:]] == [
        "ok (0 sandboxes, 5 hooks)",
        "ok (0 sandboxes, 4 hooks)",
    ]
    done = cli("check", str(bad), config)
    told = done.stdout.decode().splitlines()
    assert (done.returncode, len(told)) == (1, 3)
    assert "spec.hooks.guard.command: is missing" in told[0]


def test_schema():
    done = cli("schema")
    Draft202012Validator.check_schema(json.loads(done.stdout))


THINGS = [
    "anyspawn",
    "bwrap",
    "user namespaces",
    "protections",
    "limits",
    "docker CLI",
    "docker daemon",
    "kubectl",
    "Kubernetes cluster",
]


def test_doctor():
    """There is one finding for each thing, in a fixed order, as lines and as JSON."""
    done = cli(
        "doctor", "--json", env={"PATH": os.environ["PATH"], "DOCKER_HOST": "tcp://127.0.0.1:1"}
    )
    findings = json.loads(done.stdout)
    assert (done.returncode, [finding["name"] for finding in findings]) == (0, THINGS)
    assert all(set(finding) == {"name", "status", "detail", "advice"} for finding in findings)
    lines = cli("doctor").stdout.decode().splitlines()
    assert [line[4:] for line in lines if line[:2] in {"ok", "--", "!!"}]
    assert b"\x1b" not in cli("doctor").stdout


def test_doctor_tells_the_protections():
    """A probe inside a sandbox tests the protections; versions would prove nothing."""
    (protections,) = (
        finding
        for finding in json.loads(cli("doctor", "--json").stdout)
        if finding["name"] == "protections"
    )
    assert protections["status"] == "ok"
    assert "system calls filtered" in protections["detail"]
    assert "no network" in protections["detail"]


def test_doctor_on_a_bare_machine(tmp_path):
    """Everything is missing, and each finding has advice."""
    findings = json.loads(cli("doctor", "--json", env={"PATH": str(tmp_path)}).stdout)
    status = {finding["name"]: finding["status"] for finding in findings}
    assert {name: status[name] for name in THINGS[5:]} == dict.fromkeys(THINGS[5:], "missing")
    advice = {finding["name"]: finding["advice"] for finding in findings}
    assert "docs.docker.com" in advice["docker CLI"]
    assert "kubernetes.io" in advice["kubectl"]


def fake(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_doctor_with_broken_things(tmp_path):
    """A tool's error message is passed on in one line."""
    fake(
        tmp_path,
        "docker",
        'case "$*" in *Server*) echo "Cannot connect" >&2; exit 1;; *) echo 27.0;; esac',
    )
    fake(
        tmp_path,
        "kubectl",
        'case "$*" in *--client*) echo \'{"clientVersion": {"gitVersion": "v1.30.0"}}\';; *) echo "refused" >&2; exit 1;; esac',
    )
    fake(tmp_path, "bwrap", "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1")
    path = f"{tmp_path}:/usr/bin:/bin"
    findings = {
        finding["name"]: finding
        for finding in json.loads(cli("doctor", "--json", env={"PATH": path}).stdout)
    }
    assert findings["docker CLI"]["detail"] == "27.0"
    assert (findings["docker daemon"]["status"], findings["docker daemon"]["detail"]) == (
        "broken",
        "Cannot connect",
    )
    assert findings["kubectl"]["detail"] == "v1.30.0"
    assert (findings["Kubernetes cluster"]["status"], findings["Kubernetes cluster"]["detail"]) == (
        "broken",
        "refused",
    )
    assert findings["bwrap"]["status"] == "broken"
    assert findings["user namespaces"]["status"] == "broken"
    assert "user.max_user_namespaces" in findings["user namespaces"]["advice"]


def on_terminal(*args, **env):
    """Run the command line with a terminal as its output, and return what it shows."""
    main, side = pty.openpty()
    done = subprocess.Popen(
        [*CLI, *args], stdout=side, stdin=subprocess.DEVNULL, env=os.environ | env
    )
    os.close(side)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # Linux reports a closed other side this way
            break
        if not chunk:
            break
        shown += chunk
    os.close(main)
    done.wait(30)
    return shown


def test_colors_on_a_terminal_alone(tmp_path):
    """Colours need a terminal, and NO_COLOR turns them off there."""
    file = tmp_path / "bad.yaml"
    file.write_text("kind: x\n")
    assert b"\x1b[" in on_terminal("check", str(file))
    assert b"\x1b[" not in on_terminal("check", str(file), NO_COLOR="1")


class TestInit:
    def test_what_it_writes_runs(self, tmp_path):
        """The generated files are valid, allow and deny, and the printed command lines work."""
        done = cli("init", "agent", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        _, check, ask = done.stdout.decode().splitlines()
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        (tmp_path / "anyspawn").write_text(f'#!/bin/sh\nexec {" ".join(CLI)} "$@"\n')
        (tmp_path / "anyspawn").chmod(0o755)
        for line, status, words in (
            (check, 0, "ok (1 sandbox, 1 hook)"),
            (ask, 3, "outside of the folder"),
            (ask.replace("/etc/passwd", "notes.txt"), 0, '"allow": true'),
        ):
            shown = subprocess.run(
                line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
            )
            assert (shown.returncode, words in shown.stdout) == (status, True), shown

    def test_the_sandbox_that_it_offers_works(self, tmp_path):
        """Removing the comment mark enables the sandbox."""
        cli("init", cwd=tmp_path)
        file = tmp_path / "agent.yaml"
        file.write_text(file.read_text().replace("# sandbox: box", "sandbox: box"))
        done = cli(
            "hook", "run", str(file), "guard", stdin=b'{"Name": "read", "Args": {"path": "/x"}}'
        )
        if not bubblewrap_works():
            pytest.skip("bwrap does not work here")
        assert (done.returncode, b"outside" in done.stdout) == (3, True), done

    def test_nothing_is_overwritten(self, tmp_path):
        """Even if only one of the files exists, none is written."""
        (tmp_path / "guard.py").write_text("mine")
        done = cli("init", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"guard.py exists already; nothing was written" in done.stderr
        assert [file.name for file in tmp_path.iterdir()] == ["guard.py"]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        """One line names the folder and the reason."""
        (tmp_path / "file").touch()
        done = cli("init", str(tmp_path / "file" / "agent"))
        assert done.returncode == 1
        assert done.stderr.decode() == f"anyspawn: {tmp_path / 'file' / 'agent'}: Not a directory\n"
