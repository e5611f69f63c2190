"""Configuration files: their values, and every possible error with its place and message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from anyspawn import (
    Bubblewrap,
    ConfigError,
    Direct,
    DockerExec,
    DockerRun,
    Egress,
    Limits,
    Registry,
    default_registry,
)
from anyspawn.config import (
    ConfigProblem,
    HookConfig,
    InvalidConfigError,
    json_schema,
    load_config,
    parse_config,
)
from anyspawn.containers import SecurityConfig
from anyspawn.hooks import ExecEvalHook, ExecProviderHook, ExecSessionHook, ExecToolHook
from anyspawn.tools import ExecEval, ExecSelector, ExecTool

FILES = Path(__file__).parents[2] / "examples" / "config"
HEAD = "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\n"


def config(sandboxes="", hooks=""):
    return f"{HEAD}spec:\n  sandboxes: {{{sandboxes}}}\n  hooks: {{{hooks}}}\n"


def problems(text, environ=None, **options):
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(text, environ={} if environ is None else environ, **options)
    assert isinstance(caught.value, ConfigError)
    assert str(caught.value) == "\n".join(caught.value.lines())
    return caught.value.problems


def test_every_field():
    """Every field is read. Paths are relative to the file's folder, and variables are
    substituted.
    """
    loaded = load_config(FILES / "every-field.yaml", environ={"PII_LEVEL": "7"})
    assert loaded.metadata == {"name": "every-field", "labels": {"team": "safety"}}
    host, box = Direct(name="host", default_timeout=5, max_concurrent=4), loaded.sandboxes["box"]
    fresh, sidecar = loaded.sandboxes["fresh"], loaded.sandboxes["sidecar"]
    online = loaded.sandboxes["online"]
    assert loaded.sandboxes == {
        "host": host,
        "box": box,
        "online": online,
        "fresh": fresh,
        "sidecar": sidecar,
    }
    hosts, private = ["pypi.org", "*.pythonhosted.org:443"], ["wiki.corp.example:443"]
    assert online == Bubblewrap(name="online", network=Egress(allow=hosts, private=private))
    assert fresh == DockerRun(
        "python:3-slim",
        name="fresh",
        network="none",
        mounts=[f"{FILES / 'hooks'}:/hooks:ro", "cache:/cache"],
        user="1000:1000",
        workdir="/hooks",
        entrypoint="image",
        extra_args=["--cpus=0.5"],
        pull="missing",
        security=SecurityConfig(
            seccomp="unconfined",
            tmpfs=["/tmp:size=64m"],
            memory="256MiB",
            cpus=1.5,
            pids_limit=64,
            init=False,
        ),
    )
    assert sidecar == DockerExec(
        "my-hooks-sidecar",
        name="sidecar",
        workdir="/app",
        user="hookuser",
        extra_args=["--privileged"],
        idle_timeout=30,
        shared="trusted",
    )
    assert box == Bubblewrap(
        name="box",
        readonly=[str(FILES / "data"), str(Path("~/models").expanduser())],
        writable=["/tmp", {str(FILES / "out"): "/out"}],
        workdir="/out",
        limits=Limits(
            memory="1GiB", processes=256, cpu=1.5, tmp="256MiB", files=512, file_size=None
        ),
        share_env=["LANG"],
        seccomp="required",
        extra_args=["--hostname", "box"],
        default_timeout=2.5,
    )
    assert list(loaded.hooks.values()) == [
        ExecProviderHook(
            name="pii_redactor",
            command=str(FILES / "pii.py"),
            args=["--strict", "--level=7"],
            env=["HOME", "PII_MODE=mask"],
            timeout=1.5,
            phases=["before_call", "after_call"],
            sandbox=box.for_hooks(),
            output_limit=65536,
        ),
        ExecToolHook(
            name="audit",
            command="logger",
            args=["-t", "agent"],
            env={"AUDIT_LEVEL": "full"},
            phases=["after_execution"],
            mode="observe",
            sandbox=host,
        ),
        ExecToolHook(
            name="no_rm",
            command="python3",
            args=["guard.py"],
            phases=["before_execution"],
            protocol="claude",
            matcher="Bash|Edit",
            on_failure="allow",
        ),
        ExecSessionHook(name="sessions", command="/usr/local/bin/track"),
        ExecEvalHook(name="metrics", command="push-metrics", timeout=2),
    ]
    search = ExecTool(
        name="search",
        command=str(FILES / "search.py"),
        args=["--fast"],
        env=["HOME"],
        runtime="server",
        sandbox=box.for_hooks(),
        output_limit=4096,
    )
    assert loaded.tools == {"search": search}
    assert loaded.evals == {
        "tone": ExecEval(name="tone", command=str(FILES / "tone.py"), timeout=5)
    }
    assert loaded.selectors == {
        "nearest": ExecSelector(name="nearest", command=str(FILES / "nearest.py"), timeout=2)
    }
    assert (loaded.tool_selector, loaded.skills_selector) == ("nearest", "nearest")


def test_merge_keys_and_anchors():
    """Values from an alias apply unless the entry overrides them."""
    hooks = load_config(FILES / "anchors.yaml").hooks
    assert [
        (hook.name, Path(hook.command).name, hook.phases, hook.timeout) for hook in hooks.values()
    ] == [
        ("first", "first.py", ("before_call",), 0.5),
        ("second", "second.py", ("before_call",), 0.5),
        ("third", "third.py", ("after_call",), 0.5),
    ]


def test_sections_may_be_empty_and_absent():
    """A section such as `sandboxes:` may be empty or missing."""
    assert not parse_config(HEAD).hooks
    assert not parse_config(f"{HEAD}spec:\n").hooks
    assert not parse_config(f"{HEAD}spec:\n  hooks:\n  sandboxes:\nmetadata:\n").sandboxes
    assert not parse_config(
        json.dumps({"apiVersion": "promptkit.altairalabs.ai/v1alpha1", "kind": "RuntimeConfig"})
    ).hooks


def test_a_byte_order_mark_is_no_text():
    """A byte order mark is ignored, since some editors write one."""
    assert parse_config(b"\xef\xbb\xbf" + HEAD.encode()).metadata == {}


@pytest.mark.parametrize(
    ("text", "path", "message", "place"),
    [
        ("", "", "the file is empty; it must hold a RuntimeConfig", (1, 1)),
        ("# nothing\n", "", "the file is empty", (1, 1)),
        ("- a\n", "", "the document must be a mapping", (1, 1)),
        ("just text", "", "the document must be a mapping", (1, 1)),
        ("a: [1,\n", "", "this is not YAML: while parsing a flow node", (2, 1)),
        ("a: b: c\n", "", "this is not YAML: mapping values are not allowed here", (1, 5)),
        ("\ta: b\n", "", "this is not YAML: while scanning for the next token found character '\\t'", (1, 1)),
        ("a: \0\n", "", "this is not YAML: unacceptable character", (None, None)),
        (b"kind: x\na: \xff\n", "", "byte 0xff is not UTF-8; save the file as UTF-8", (2, 4)),
        (HEAD + "---\na: b\n", "", "expected a single document", (3, 1)),
        ("[" * 100_000, "", "values are nested too deeply", (None, None)),
        (HEAD + "kind: RuntimeConfig\n", "kind", "the key comes twice, first in line 2", (3, 1)),
        (HEAD + "spec: {hooks: {a: {hook: tool, command: x, command: y}}}", "spec.hooks.a.command", "comes twice", (3, 44)),
        (HEAD + "? [a, b]\n: c\n", "", "a key in line 3 is not text", (1, 1)),
        (HEAD + "metadata: &a {x: *a}\n", "metadata.x", "inside the value that it refers to", (3, 15)),
        (HEAD + "metadata: {a: !!python/name:os.system x}\n", "metadata.a", "tags are not known here; put a text that begins with ! in quotes", (3, 12)),
        (HEAD + f"metadata: {{x: {'9' * 5000}}}\n", "metadata.x", "more digits than can be read", (3, 12)),
        (HEAD + "metadata: {<<: [1]}\n", "metadata", "<< takes an alias of a mapping", (3, 1)),
        ("kind: RuntimeConfig\n", "apiVersion", "is missing; it must be promptkit.altairalabs.ai/v1alpha1", (1, 1)),
        ("apiVersion: v2\nkind: RuntimeConfig\n", "apiVersion", "must be promptkit.altairalabs.ai/v1alpha1, not 'v2'", (1, 1)),
        ("apiVersion: promptkit.altairalabs.ai/v1alpha1\n", "kind", "is missing; it must be RuntimeConfig", (1, 1)),
        (HEAD + "spek: {}\n", "spek", "unknown key; did you mean 'spec'?", (3, 1)),
        (HEAD + "spec: []\n", "spec", "must be a mapping", (3, 1)),
        (HEAD + "spec: 3\n", "spec", "must be a mapping", (3, 1)),
        (HEAD + "metadata: x\n", "metadata", "must be a mapping", (3, 1)),
        (HEAD + "spec:\n  hoks: {}\n", "spec.hoks", "unknown key; did you mean 'hooks'?", (4, 3)),
        (HEAD + "spec:\n  sandbox: {}\n", "spec.sandbox", "unknown key; did you mean 'sandboxes'?", (4, 3)),
        (HEAD + "spec:\n  hooks: [a]\n", "spec.hooks", "must be a mapping", (4, 3)),
        (config(sandboxes="a: 3"), "spec.sandboxes.a", "must be a mapping", (4, 15)),
        (config(sandboxes="a: {}"), "spec.sandboxes.a.mode", "is missing (known: bubblewrap, direct, docker_exec", (4, 15)),
        (config(sandboxes="a: {mode: [x]}"), "spec.sandboxes.a.mode", "must be a text (known: ", (4, 19)),
        (config(sandboxes="a: {mode: dirct}"), "spec.sandboxes.a.mode", "unknown mode 'dirct'; did you mean 'direct'?", (4, 19)),
        (config(sandboxes="a: {mode: bubblewrap, netwrk: true}"), "spec.sandboxes.a.netwrk", "unknown key; did you mean 'network'?", (4, 37)),
        (config(sandboxes="a: {mode: bubblewrap, network: yes}"), "spec.sandboxes.a.network", "must be true or false, not a text ('yes')", (4, 37)),
        (config(sandboxes="a: {mode: bubblewrap, network: {allow: [], alow: [a]}}"), "spec.sandboxes.a.network.alow", "unknown key; did you mean 'allow'? (known: allow, private)", (4, 58)),
        (config(sandboxes="a: {mode: bubblewrap, network: {allow: [], resolve: a}}"), "spec.sandboxes.a.network.resolve", "unknown key (known: allow, private)", (4, 58)),
        (config(sandboxes="a: {mode: bubblewrap, network: {allow: a}}"), "spec.sandboxes.a.network.allow", "must be a list, not a text ('a')", (4, 47)),
        (config(sandboxes="a: {mode: bubblewrap, network: {allow: ['http://a']}}"), "spec.sandboxes.a.network.allow", "'http://a' is not a host such as pypi.org", (4, 47)),
        (config(sandboxes="a: {mode: bubblewrap, readonly: /a}"), "spec.sandboxes.a.readonly", "must be a list, not a text ('/a'); put brackets around it", (4, 37)),
        (config(sandboxes="a: {mode: bubblewrap, readonly: [1]}"), "spec.sandboxes.a.readonly[0]", "must be a text, not a number; put it in quotes", (4, 48)),
        (config(sandboxes="a: {mode: bubblewrap, share_env: [A=b]}"), "spec.sandboxes.a.share_env", "takes names of variables alone, not 'A'", (4, 37)),
        (config(sandboxes="a: {mode: direct, default_timeout: 1s}"), "spec.sandboxes.a.default_timeout", "must be a number, not a text ('1s')", (4, 33)),
        (config(sandboxes="a: {mode: direct, default_timeout: -1}"), "spec.sandboxes.a.default_timeout", "must be a number of seconds above 0", (4, 33)),
        (config(sandboxes="a: {mode: direct, max_concurrent: 1.5}"), "spec.sandboxes.a.max_concurrent", "must be a whole number, not a number (1.5)", (4, 33)),
        (config(sandboxes="a: {mode: direct, max_concurrent: 0}"), "spec.sandboxes.a.max_concurrent", "must be an int of 1 or more", (4, 33)),
        (config(sandboxes="a: {mode: direct, name: b}"), "spec.sandboxes.a.name", "unknown key", (4, 33)),
        (config(sandboxes="a: {mode: docker_run}"), "spec.sandboxes.a.image", "is missing", (4, 15)),
        (config(sandboxes="a: {mode: docker_run, image: ''}"), "spec.sandboxes.a.image", "is empty", (4, 37)),
        (config(sandboxes="a: {mode: docker_run, image: -x}"), "spec.sandboxes.a.image", "must not start with '-'", (4, 37)),
        (config(sandboxes="a: {mode: docker_run, image: x, mounts: [/a]}"), "spec.sandboxes.a.mounts", "'/a' is not of the form", (4, 47)),
        (config(sandboxes="a: {mode: docker_run, image: x, security: {memry: 1g}}"), "spec.sandboxes.a.security.memry", "unknown key; did you mean 'memory'?", (4, 58)),
        (config(sandboxes="a: {mode: docker_run, image: x, security: {memory: 1q}}"), "spec.sandboxes.a.security.memory", "'1q' is not a size", (4, 58)),
        (config(sandboxes="a: {mode: docker_run, image: x, security: {seccomp: ./no.json}}"), "spec.sandboxes.a.security.seccomp", "cannot be read", (4, 58)),
        (config(sandboxes="a: {mode: docker_run, image: x, security: yes}"), "spec.sandboxes.a.security", "must be a mapping, not a text", (4, 47)),
        (config(sandboxes="a: {mode: docker_exec, container: x, supervisor: of}"), "spec.sandboxes.a.supervisor", "must be one of auto, required, off, not 'of'; did you mean 'off'?", (4, 52)),
        (config(sandboxes="-a: {mode: direct}"), "spec.sandboxes.-a.name", "must not start with '-'", (4, 15)),
        (config(sandboxes='"": {mode: direct}'), "spec.sandboxes['']", "the name is empty", (4, 15)),
        (config(hooks="a: x"), "spec.hooks.a", "must be a mapping, not a text ('x')", (5, 11)),
        (config(hooks="a: {hook: tool}"), "spec.hooks.a.command", "is missing", (5, 11)),
        (config(hooks="a: {command: x}"), "spec.hooks.a.hook", "is missing", (5, 11)),
        (config(hooks="a: {command: x, hook: tol}"), "spec.hooks.a.hook", "must be one of provider, tool, session, eval, agent, not 'tol'; did you mean 'tool'?", (5, 27)),
        (config(hooks="a: {command: '', hook: tool}"), "spec.hooks.a.command", "is empty; it must name the program", (5, 15)),
        (config(hooks="a: {command: 3, hook: tool}"), "spec.hooks.a.command", "must be a text, not a number", (5, 15)),
        (config(hooks="a: {command: x, hook: tool, args: x}"), "spec.hooks.a.args", "must be a list", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, args: [a, {}]}"), "spec.hooks.a.args[1]", "must be a text, not a mapping", (5, 49)),
        (config(hooks="a: {command: x, hook: tool, env: 3}"), "spec.hooks.a.env", "must be a mapping, not a number (3)", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, env: {A: 1}}"), "spec.hooks.a.env.A", "must be a text, not a number", (5, 45)),
        (config(hooks="a: {command: x, hook: tool, env: {A=B: x}}"), "spec.hooks.a.env", "A=... is not a variable name", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, timeout_ms: soon}"), "spec.hooks.a.timeout_ms", "must be a number, not a text ('soon')", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, timeout_ms: .nan}"), "spec.hooks.a.timeout_ms", "must be a number, not a number (nan)", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, phases: [before_exec]}"), "spec.hooks.a.phases[0]", "did you mean 'before_execution'?", (5, 48)),
        (config(hooks="a: {command: x, hook: tool, phases: [before_call]}"), "spec.hooks.a.phases", "'before_call' is not a phase of this hook", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, mode: filtr}"), "spec.hooks.a.mode", "did you mean 'filter'?", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, sandbox: box}"), "spec.hooks.a.sandbox", "no sandbox is called 'box' (declared: none)", (5, 39)),
        (config("boxx: {mode: direct}", "a: {command: x, hook: tool, sandbox: box}"), "spec.hooks.a.sandbox", "did you mean 'boxx'? (declared: boxx)", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, matcher: '('}"), "spec.hooks.a.matcher", "is of the protocols of agent tools", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, protocol: claude, matcher: '('}"), "spec.hooks.a.matcher", "is neither names such as Edit|Write nor a regular expression", (5, 57)),
        (config(hooks="a: {command: x, hook: tool, comand: y}"), "spec.hooks.a.comand", "unknown key; did you mean 'command'?", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, runtime: sever}"), "spec.hooks.a.runtime", "must be one of exec", (5, 39)),
        (config(hooks="a: {command: '${NOPE}', hook: tool}"), "spec.hooks.a.command", "the variable NOPE is not set; set it, or give a default: ${NOPE:-...}", (5, 15)),
        ('a: "\\U00110000"\n', "", "this is not YAML", (None, None)),
        ('a: "\\UFFFFFFFF"\n', "", "this is not YAML", (None, None)),
        (HEAD + "metadata: *nothing\n", "", "an alias that nothing defines", (3, 11)),
        (HEAD + 'metadata: {"\\ud800": 1}\n', "metadata", "a key in line 3 has a lone surrogate", (3, 1)),
        (HEAD + 'metadata: {a: "\\ud800"}\n', "metadata.a", "the text has a lone surrogate", (3, 12)),
        (HEAD + f"metadata: {{a: 0x{'f' * 5000}}}\n", "metadata.a", "more digits than can be read", (3, 12)),
        (HEAD + "metadata: {a: 1e999}\n", "metadata.a", "more digits than can be read", (3, 12)),
        (HEAD + "metadata: {a: !!bool yes}\n", "metadata.a", "the value is not a bool, as its tag says", (3, 12)),
        (HEAD + "metadata: {a: !!null text}\n", "metadata.a", "the value is not a null, as its tag says", (3, 12)),
        (HEAD + "spec:\n  HOOKS: {}\n", "spec.HOOKS", "unknown key; did you mean 'hooks'?", (4, 3)),
        (config(hooks="a: {command: x, hook: tool, sandbox: }"), "spec.hooks.a.sandbox", "is empty; name a sandbox, or leave", (5, 39)),
        (config(hooks="a: {command: x, hook: tool, protocol: claude, matcher: ' | '}"), "spec.hooks.a.matcher", "names no tool", (5, 57)),
        (config(hooks="a: {command: x, hook: tool, protocol: claude, matcher: '(a+)+'}"), "spec.hooks.a.matcher", "could take very long", (5, 57)),
        (config(hooks="a: {command: '${1}', hook: tool}"), "spec.hooks.a.command", "${ is not followed by NAME}", (5, 15)),
    ],
)  # fmt: skip
def test_problems(text, path, message, place):
    """Each file has one problem, reported at its place with a message that says what to do."""
    (problem,) = problems(text)
    assert problem.path == path
    assert message in problem.message
    assert (problem.line, problem.column) == place


def test_all_problems_at_once():
    """All problems are reported, in the order of the file; a wrong field does not hide other
    problems of its entry.
    """
    text = f"""{HEAD}spec:
  sandboxes:
    box: {{mode: bubblewrap, network: 1, default_timeout: 0, readonly: [2]}}
  hooks:
    a:
      command: [x]
      hook: provider
      phases: [after_cal, session_end]
      args: x
    b:
      command: y
      hook: tool
      mode: flter
      sandbox: bx
      matcher: Bash
      timeout_ms: true
extra: 1
"""
    found = [(problem.path, problem.line) for problem in problems(text)]
    assert found == [
        ("spec.sandboxes.box.network", 5),
        ("spec.sandboxes.box.default_timeout", 5),
        ("spec.sandboxes.box.readonly[0]", 5),
        ("spec.hooks.a.command", 8),
        ("spec.hooks.a.phases[0]", 10),
        ("spec.hooks.a.args", 11),
        ("spec.hooks.b.mode", 15),
        ("spec.hooks.b.sandbox", 16),
        ("spec.hooks.b.matcher", 17),
        ("spec.hooks.b.timeout_ms", 18),
        ("extra", 19),
    ]


@pytest.mark.parametrize("bomb", ["values", "merges"])
def test_alias_bombs_are_bounded(bomb):
    """Nested aliases that expand to a billion values are refused."""
    start = "a: &a [x, x]\n" if bomb == "values" else "a: &a {x: 1}\n"
    text = start + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
        if bomb == "values"
        else f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 9)}]}}\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (problem,) = problems(text)
    assert problem.message == "there are more than 20000 values, aliases written out; write less"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x${A}y${B}", "x1y"),
        ("${B:-b}", "b"),
        ("${C:-c d}", "c d"),
        ("${C:-}", ""),
        ("$${A}", "${A}"),
        ("$A $$", "$A $$"),
        ("${D}", "${A}"),
    ],
)
def test_variables(text, value):
    """An empty variable takes the default, as in a shell. A value is not expanded again."""
    hooks = parse_config(
        config(hooks=f"a: {{command: x, hook: tool, args: ['{text}']}}"),
        environ={"A": "1", "B": "", "D": "${A}"},
    ).hooks
    assert hooks["a"].args == (value,)


def test_variables_stand_for_numbers_and_booleans_too():
    """A variable becomes a number or a boolean where one is expected, and a text elsewhere."""
    loaded = parse_config(
        config(
            "box: {mode: bubblewrap, network: '${N}', max_concurrent: '${M}', default_timeout: '${T}'}",
            "a: {command: x, hook: tool, args: ['${M}'], timeout_ms: '${T}'}",
        ),
        environ={"N": "true", "M": "7", "T": "1.5"},
    )
    box, hook = loaded.sandboxes["box"], loaded.hooks["a"]
    assert (box.network, box.max_concurrent, box.default_timeout) == (True, 7, 1.5)
    assert (hook.args, hook.timeout) == (("7",), 0.0015)


def test_a_variable_cannot_change_the_documents_form():
    """A value cannot add YAML syntax, and does not appear in messages, since it may be a secret."""
    hostile = "x}, b: {command: evil, hook: tool"
    hooks = parse_config(
        config(hooks="a: {command: '${X}', hook: tool}"), environ={"X": hostile}
    ).hooks
    assert list(hooks) == ["a"]
    for field in (
        "timeout_ms: '${X}'",
        "mode: '${X}'",
        "output_limit: '${X}'",
        "sandbox: '${X}'",
        "matcher: '${X}('",
    ):
        (problem,) = problems(
            config(hooks=f"a: {{command: x, hook: tool, {field}}}"), {"X": "s3cr3t"}
        )
        assert "s3cr3t" not in problem.message
    (problem,) = problems(config("a: {mode: '${X}'}"), {"X": "s3cr3t"})
    assert "s3cr3t" not in problem.message
    for value in ("s3cr3t1", "!s3cr3t", "*s3cr3t", "3141592"):
        assert all(
            "s3cr3t" not in p.message and "314" not in p.message
            for p in problems(config(hooks=f"a: {{command: x, hook: tool, env: {{P: [{value}]}}}}"))
        )
    assert "s3cr3t" not in repr(HookConfig(command="x", hook="tool", env={"P": "s3cr3t"}))


def test_scalars_mean_what_they_look_like():
    """YAML 1.1 would read these values as booleans, a number of minutes and a date."""
    hooks = parse_config(
        config(hooks="a: {command: x, hook: tool, args: [no, 12:30, 2026-01-01, off, ~/x, 'a']}")
    ).hooks
    assert hooks["a"].args == ("no", "12:30", "2026-01-01", "off", "~/x", "a")


def test_paths(tmp_path, monkeypatch):
    """A command with a slash is relative to the file's folder, not to the working directory; a bare
    name is looked up on PATH.
    """
    file = tmp_path / "sub" / "agent.yaml"
    file.parent.mkdir()
    file.write_text(
        config(
            "box: {mode: bubblewrap, readonly: [x]}",
            "a: {command: ../a.py, hook: tool, sandbox: box}, b: {command: b, hook: tool}",
        )
    )
    monkeypatch.chdir(tmp_path)
    loaded = load_config("sub/agent.yaml")
    assert loaded.hooks["a"].command == str(tmp_path / "a.py")
    assert loaded.hooks["b"].command == "b"
    assert loaded.sandboxes["box"].readonly == (str(file.parent / "x"),)
    with pytest.raises(FileNotFoundError):
        load_config("no-such-file.yaml")


def test_other_registries():
    """A factory that is not one of our classes gets the settings, and an exception that it raises
    is a problem.
    """

    def factory(name, settings):
        if "key" not in settings:
            raise KeyError("key")
        if settings["key"] == "bad":
            raise ConfigError("key must not be bad")
        return Direct(name=name)

    registry = Registry()
    registry.register("cloud", factory)
    assert (
        parse_config(config("a: {mode: cloud, key: v}"), registry=registry).sandboxes["a"].name
        == "a"
    )
    (problem,) = problems(config("a: {mode: cloud, key: bad}"), registry=registry)
    assert (problem.path, problem.message) == ("spec.sandboxes.a", "key must not be bad")
    (problem,) = problems(config("a: {mode: cloud}"), registry=registry)
    assert problem.message == "KeyError: 'key'"
    registry.register("nothing", lambda name, settings: None)
    text = config("a: {mode: nothing}", "h: {command: x, hook: tool, sandbox: a}")
    (problem,) = problems(text, registry=registry)  # the hook must not run on this host instead
    assert (problem.path, problem.message) == (
        "spec.sandboxes.a",
        "its factory gave NoneType, which is not a sandbox",
    )
    (problem,) = problems(config("a: {mode: direct}"), registry=registry)
    assert "unknown mode 'direct' (known: cloud, nothing)" in problem.message


def test_lines_are_what_editors_jump_to():
    """A line has the form `file:line:column:`, as far as these are known."""
    error = InvalidConfigError(
        [ConfigProblem("b", "two", 2, 1), ConfigProblem("", "one")], "agent.yaml"
    )
    assert error.lines() == ["agent.yaml: one", "agent.yaml:2:1: b: two"]


def test_many_wrong_names_are_still_a_message_of_bounded_size():
    """A file with hundreds of wrong names takes neither minutes nor megabytes."""
    sandboxes = ", ".join(f"sandbox{n}: {{mode: direct}}" for n in range(400))
    hooks = ", ".join(f"h{n}: {{command: x, hook: tool, sandbox: snadbox{n}}}" for n in range(400))
    found = problems(config(sandboxes, hooks))
    assert len(found) == 400
    assert all(len(problem.message) < 500 for problem in found)
    assert "and 380 more" in found[0].message


SCHEMA = Draft202012Validator(json_schema())


@pytest.mark.parametrize("file", sorted(FILES.glob("*.yaml")), ids=lambda file: file.name)
def test_the_schema_accepts_the_examples(file):
    """A file that loads is valid by the schema."""
    import yaml

    load_config(file)
    SCHEMA.validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    "hooks",
    [
        {"a": {"hook": "tool"}},
        {"a": {"hook": "tol", "command": "x"}},
        {"a": {"hook": "tool", "command": 3}},
        {"a": {"hook": "tool", "command": "x", "args": "y"}},
        {"a": {"hook": "tool", "command": "x", "env": {"A": 1}}},
        {"a": {"hook": "tool", "command": "x", "phases": ["never"]}},
        {"a": {"hook": "tool", "command": "x", "timeout_ms": "soon"}},
        {"a": {"hook": "tool", "command": "x", "comand": "y"}},
        {"": {"hook": "tool", "command": "x"}},
        ["a"],
    ],
)
def test_the_schema_refuses_what_loading_refuses(hooks):
    """The schema and the loader refuse the same mistakes."""
    document = {
        "apiVersion": "promptkit.altairalabs.ai/v1alpha1",
        "kind": "RuntimeConfig",
        "spec": {"hooks": hooks},
    }
    assert not SCHEMA.is_valid(document)
    assert problems(json.dumps(document))


def is_read(text):
    try:
        parse_config(text)
    except InvalidConfigError:
        return False
    return True


HOOK_KEYS = {
    "command": st.sampled_from(["true", "", 3]),
    "hook": st.sampled_from(["provider", "tool", "session", "eval", "agent", "${K:-tool}"]),
    "protocol": st.sampled_from(["exec", "claude", "codex", "gemini", "cursor", "copilot"]),
    "phases": st.lists(
        st.sampled_from(
            ["before_call", "before_execution", "session_end", "Stop", "${P:-after_execution}", 1]
        ),
        max_size=2,
    ),
    "mode": st.sampled_from(["filter", "observe", "${M:-filter}", "both"]),
    "matcher": st.sampled_from(["*", "", "Bash", "${X:-*}"]),
    "runtime": st.sampled_from(["exec", "server"]),
    "rewrites": st.booleans(),
    "sequential": st.booleans(),
    "names": st.sampled_from(["pascal", "snake"]),
    "on_failure": st.sampled_from(["deny", "allow", "as_claude", "as_cursor"]),
    "output_limit": st.sampled_from([0, 1, -1, 2.5, "${L:-5}"]),
    "timeout_ms": st.sampled_from([0, -5, 100, 1e300, "${T:-5}", None]),
    "sandbox": st.none(),
    "project": st.sampled_from([None, "/p"]),
}


@given(
    st.fixed_dictionaries(
        {name: HOOK_KEYS[name] for name in ("command", "hook")},
        optional={name: HOOK_KEYS[name] for name in list(HOOK_KEYS)[2:]},
    )
)
@settings(max_examples=300, deadline=None)
def test_the_schema_and_the_reader_agree(hook):
    """The two also agree on combinations of keys, except for variables, whose values only the
    loader knows.
    """
    assume(not any("${" in str(hook.get(key)) for key in ("hook", "mode", "matcher", "phases")))
    document = {
        "apiVersion": "promptkit.altairalabs.ai/v1alpha1",
        "kind": "RuntimeConfig",
        "spec": {"hooks": {"h": hook}},
    }
    assert SCHEMA.is_valid(document) is is_read(json.dumps(document))


@pytest.mark.parametrize(
    ("spec", "valid"),
    [
        ("{hooks: {h: {command: true, hook: '${K:-tool}'}}}", False),
        ("{hooks: {h: {command: 'true', hook: '${K:-tool}'}}}", True),
        ("{hooks: {h: {command: 'true', hook: tool, phases: ['${P:-before_execution}']}}}", True),
        ("{hooks: {h: {command: 'true', hook: tool, mode: '${M:-observe}'}}}", True),
        ("{sandboxes: {b: {mode: '${M:-direct}'}}}", True),
        ("{hook: {}}", False),
        ("{Hooks: {}}", False),
        ("{hooky: {}}", False),
        ("{sandbox: {}}", False),
        ("{snadboxes: {}}", False),
        ("{tools: {}, books_and_more: {}, skills: {}}", True),
        ("{tools: {t: {command: x, sandbox: null}}}", False),
        ("{tools: {t: {command: x, runtime: '${R:-server}', description: d}}}", True),
        ("{tools: {t: {command: x, timout_ms: 5}}}", False),
        ("{tools: {t: {comand: x}}}", False),
        ("{tools: {t: {http: {url: x}}, u: null}}", True),
        ("{evals: {t: {command: x, timeout_ms: 5}}}", True),
        ("{evals: {t: {http: {url: x}}}}", False),
        ("{selectors: {t: {command: ''}}}", False),
        ("{selectors: {t: {command: x, args: [1]}}}", False),
        ("{eval: {}}", False),
        ("{tool: {}}", False),
        ("{selector: {}}", False),
    ],
)
def test_the_schema_and_the_reader_agree_on_variables_and_names(spec, valid):
    """A variable may stand for any value of a list; a misspelt section is a problem."""
    text = f"apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\nspec: {spec}\n"
    import yaml

    assert SCHEMA.is_valid(yaml.safe_load(text)) is valid
    assert is_read(text) is valid


def test_the_schema_knows_modes_and_their_fields():
    """The schema knows each mode's fields, and describes them with the text of their docstrings."""
    Draft202012Validator.check_schema(SCHEMA.schema)
    spec = {"sandboxes": {"a": {"mode": "bubblewrap", "network": "${N}"}}}
    head = {"apiVersion": "promptkit.altairalabs.ai/v1alpha1", "kind": "RuntimeConfig"}
    assert SCHEMA.is_valid(head | {"spec": spec})
    for wrong in (
        {"mode": "bubblewrap", "network": "no"},
        {"mode": "direct", "network": True},
        {"mode": "nope"},
        {},
    ):
        assert not SCHEMA.is_valid(head | {"spec": {"sandboxes": {"a": wrong}}})
    kinds = SCHEMA.schema["properties"]["spec"]["properties"]["sandboxes"]["additionalProperties"][
        "oneOf"
    ]
    for kind in kinds:
        for name, field in kind["properties"].items():
            assert name == "mode" or field["description"].endswith("."), name


def test_the_schema_is_shipped():
    """The shipped file is what `anyspawn schema` prints."""
    import anyspawn.config

    shipped = Path(anyspawn.config.__file__).with_name("schema.json")
    assert json.loads(shipped.read_text()) == json_schema(), (
        f"{sys.executable} -m anyspawn schema > {shipped}"
    )


@pytest.mark.parametrize("missing", ["cattrs", "yaml"])
def test_without_its_extra_it_says_what_to_install(missing):
    """The ImportError has the command that installs the missing package."""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport anyspawn.config"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"anyspawn.config needs {missing}: pip install 'anyspawn[config]'" in done.stderr


@pytest.mark.parametrize(
    ("name", "arg", "variable", "path"),
    [
        ("h", "${NOPE:-${HOME}}", "X", r"spec\.hooks\.h\.args\[0\]: the default of NOPE"),
        ("${HOME}", "a", "X", r"spec\.hooks\.\$\{HOME\}: a key cannot contain a variable"),
        ("h", "a", "${HOME}", r"spec\.hooks\.h\.env\.\$\{HOME\}: a key cannot contain a variable"),
    ],
)
def test_references_that_are_not_looked_up_are_problems(name, arg, variable, path):
    """A reference in a default or in a key would reach the program unexpanded, so it is refused."""
    entry = f"{{command: echo, args: ['{arg}'], env: {{'{variable}': x}}, hook: tool}}"
    text = (
        "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\n"
        f"spec:\n  hooks:\n    '{name}': {entry}\n"
    )
    with pytest.raises(InvalidConfigError, match=path) as caught:
        parse_config(text)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#" * 2**20 + "\n#\nx: 1", "<config>:1:1048577: the file goes on beyond 1048576"),
        ("# \n" * 2**20, "<config>:349526:2: the file goes on beyond"),
        ("a: [" + "1,\n" * 30_000, "<config>:19999:1: there are more than 20000 values"),
    ],
)
def test_a_file_that_is_too_large_is_refused_with_its_place(text, words, tmp_path):
    """The size is checked before the file is parsed: the last file is not even YAML."""
    with pytest.raises(InvalidConfigError, match=words):
        parse_config(text)
    file = tmp_path / "large.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfigError, match=words.removeprefix("<config>:")):
        load_config(file)


def test_a_registry_of_a_conversation():
    """A registry sees its parent's modes, later ones too, and its own modes stay out of
    the parent.
    """
    above = Registry(parent=default_registry)
    own = Registry(parent=above)
    own.register("mine", lambda name, _: Direct(name=name))
    above.register("later", lambda name, _: Direct(name=name))
    with pytest.raises(ConfigError, match="'bubblewrap' is registered already; use replace"):
        own.register("bubblewrap", lambda name, _: Direct(name=name))
    text = (
        "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\nspec:\n"
        "  sandboxes: {a: {mode: mine}, b: {mode: bubblewrap}, c: {mode: later}}\n"
    )
    assert list(parse_config(text, registry=own).sandboxes) == ["a", "b", "c"]
    assert set(own.modes()) == {*default_registry.modes(), "mine", "later"}
    own.replace("bubblewrap", lambda name, _: Direct(name=name))
    assert isinstance(parse_config(text, registry=own).sandboxes["b"], Direct)
    with pytest.raises(ConfigError, match="unknown mode 'mine'"):
        above.lookup("mine")
    assert above.lookup("bubblewrap") is default_registry.lookup("bubblewrap")
