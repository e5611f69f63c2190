"""Control sequences in text from others do not reach the terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from anyspawn import ConfigError, NotStartedError, TransportError
from anyspawn._foreign import plain
from anyspawn.config import InvalidConfigError, parse_config

EVIL = "\x1b]0;title\x07\x1b[2J\x9b1m\u202e\x7f"


def test_control_characters_are_escaped():
    """Letters of any script, line breaks and tabs are not escaped."""
    assert plain("é ☃ 中\n\tx") == "é ☃ 中\n\tx"
    assert plain("a\nb\tc", lines=False) == r"a\nb\tc"
    assert plain(EVIL) == r"\x1b]0;title\x07\x1b[2J\x9b1m\u202e\x7f"
    assert plain("\udc80\r") == r"\udc80\r"


@pytest.mark.parametrize("kind", [ConfigError, NotStartedError, TransportError])
def test_errors_have_none(kind):
    """An error escapes the text that it quotes, whoever wrote it."""
    assert str(kind(f"the daemon said {EVIL}")).isprintable()


CONFIG = r"""
apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  sandboxes:
    "b\e]0;title\a\e[2J\nx": {mode: bubblewrap}
  hooks:
    "h\e]0;title\a\e[2J\nx": {command: x, hook: tool, sandbox: none}
"""


def test_problems_of_a_configuration_are_a_line_each():
    """Names in the file cannot add lines or control characters to a problem."""
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(CONFIG)
    assert [line for line in caught.value.lines() if not line.isprintable()] == []


def shown(argv, **env):
    """Return what a command writes to its terminal."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "anyspawn", *argv],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", **env},
        )
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 4096):
                said += chunk
        except OSError:  # the other end is closed
            pass
        process.wait()
        return said
    finally:
        os.close(ours)


@pytest.fixture
def evil_clients(tmp_path):
    """A folder with clients whose messages contain control sequences."""
    for name in ("docker", "kubectl"):
        client = tmp_path / name
        client.write_text(
            "#!/bin/sh\n"
            r"printf 'Error response from daemon: \033]0;title\007\033[2Jno\n' >&2; exit 125"
            "\n"
        )
        client.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    "argv",
    [
        ["prune"],
        ["prune", "--mode", "kubectl_run"],
        ["doctor"],
        ["box", "--", "true"],
        ["run", "--mode", "docker_exec", "--container", "x", "--", "true"],
        ["run", "--mode", "kubectl_exec", "--pod", "x", "--", "true"],
    ],
    ids=lambda argv: " ".join(argv[:3]),
)
def test_what_a_daemon_says(argv, evil_clients):
    """The messages of docker and kubectl are escaped."""
    said = shown(argv, PATH=evil_clients)
    assert b"\x1b]0;title" not in said
    assert b"\x1b[2J" not in said
    assert rb"\x1b[2Jno" in said


def test_names_in_a_configuration(tmp_path):
    """Someone else may have written the file."""
    file = tmp_path / "agent.yaml"
    file.write_text(CONFIG)
    said = shown(["check", str(file)])
    assert rb"\x1b]0;title\x07" in said
    assert b"\x1b]0;title" not in said


def on_terminal(*argv):
    """Start a command in the foreground of a new terminal; return its pid and our end of the
    terminal.
    """
    pid, ours = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "anyspawn", *argv])
    return pid, ours


def read_until(ours, wanted):
    said = b""
    while wanted not in said:
        said += os.read(ours, 4096)
    return said


def test_what_is_typed_reaches_the_program():
    """Typed lines reach the program one by one, and Ctrl-D ends its input."""
    pid, ours = on_terminal("run", "--timeout", "60s", "--", "sed", "-u", "s/^/got /")
    try:
        os.write(ours, b"one\n")
        read_until(ours, b"got one")
        os.write(ours, b"two\n")
        read_until(ours, b"got two")
        os.write(ours, b"\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(ours)


IN_BACKGROUND = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
run = [sys.executable, "-m", "anyspawn", "run", "--timeout", "60s", "--"]
script = "echo up; read line; echo got $line"
process = subprocess.Popen([*run, "sh", "-c", script], stdout=subprocess.PIPE, process_group=0)
assert process.stdout.readline() == b"up\\n"
print("started", flush=True)
assert sys.stdin.readline() == "the shell's\\n"
os.tcsetpgrp(0, process.pid)
print("in front", flush=True)
print("program", process.stdout.read(), process.wait(), "done", flush=True)
"""


def test_in_the_background_the_terminal_is_the_shells():
    """A program gets typed input only while its command is in the foreground."""
    pid, ours = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", IN_BACKGROUND])
    try:
        read_until(ours, b"started")
        os.write(ours, b"the shell's\n")
        read_until(ours, b"in front")
        os.write(ours, b"the program's\n")
        assert b"got the program's\\n\" 0 done" in read_until(ours, b"done\r\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(ours)


def test_hook_run_says_what_it_waits_for(tmp_path):
    """At a terminal nothing else would show that the command waits for input."""
    file = tmp_path / "agent.yaml"
    file.write_text(
        CONFIG.partition("  sandboxes")[0] + "  hooks:\n    h: {command: 'true', hook: eval}\n"
    )
    pid, ours = on_terminal("hook", "run", str(file), "h")
    try:
        read_until(ours, b"type the JSON payload, then Ctrl-D")
        os.write(ours, b"{\n\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    finally:
        os.close(ours)
