"""The supervisor's script on each supported shell: dash, bash and busybox's ash, without a
container.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from anyspawn._env import Env
from anyspawn.supervisor import reading_script, script, script_line
from anyspawn.supervisor.encode import CHUNK, CLOSE, chunk_line, head
from anyspawn.supervisor.protocol import TOOK
from frames import Frames
from machine import eventually, processes_with

RUNNING = "running"


class Reading(list):
    """A shell that reads the script from its stdin."""


SHELLS = [
    pytest.param(["dash"], id="dash"),
    pytest.param(["bash"], id="bash"),
    pytest.param(["busybox", "sh"], id="busybox"),
    pytest.param(Reading(["busybox", "sh"]), id="busybox reading"),
]


@pytest.fixture(params=SHELLS)
def shell(request):
    if shutil.which(request.param[0]) is None:
        pytest.skip(f"there is no {request.param[0]}")
    return request.param


class Supervised:
    """A command under the supervisor, as a client in a container would run it."""

    def __init__(
        self, shell, argv, *, env=(), stdin=b"", cwd=None, live=False, wants=False, short=0
    ):
        self.nonce = uuid.uuid4().hex
        self.frames, self.out_frames = Frames(self.nonce, wants=wants), Frames(self.nonce)
        size = None if live else len(stdin)
        words = head(uuid.uuid4().hex, self.nonce, Env(env).known(), size, cwd)
        words += stdin[: len(stdin) - short]
        begin = script()
        if isinstance(shell, Reading):
            begin, words = reading_script(), script_line() + words
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*shell, "-c", begin, "anyspawn", *argv], stdin=pipe, stdout=pipe, stderr=pipe
        )
        with suppress(BrokenPipeError):
            self.process.stdin.write(words)
            self.process.stdin.flush()

    def end(self):
        """Wait for the command's exit; return its outputs and its status."""
        stdout, stderr = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait(30)
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
        assert self.process.returncode == 0  # a frame has the command's status
        stdout = self.out_frames.feed(stdout) + self.out_frames.rest()
        return stdout, self.frames.feed(stderr) + self.frames.rest(), self.frames.exit_status

    def cut(self):
        """Cut the lifeline, and return as `end` does."""
        self.process.stdin.close()
        return self.end()


def test_a_command_that_ends(shell):
    """Input, both outputs and the status arrive. The frames report start, exit and a clean end in
    this order.
    """
    call = Supervised(shell, ["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in\0\xff\n")
    assert call.end() == (b"in\0\xff\n", b"err\n", 3)
    assert said(call) == ["ready", "start", "exit 3", "clean"]
    assert call.out_frames.words == ["start", "end"]


@pytest.mark.parametrize(
    "value",
    [
        bytes(range(1, 256)),
        b"",
        b"\n",
        b"\n\n",
        b"'",
        b"a'b\n'",
        b" a ",
        b"\\n\\",
        b"$(id)`id`",
        b"\xe9",
        b"-n",
    ],
)
def test_variables_are_exact(shell, value):
    """A value can contain any byte but NUL."""
    text = os.fsdecode(value)
    stdout, _, _ = Supervised(shell, ["cat", "/proc/self/environ"], env={"A": text, "B": "b"}).end()
    found = [entry for entry in stdout.split(b"\0") if entry.startswith((b"A=", b"B="))]
    assert sorted(found) == [b"A=" + value, b"B=b"]


def test_variables_do_not_steer_the_supervisor(shell):
    """Variables that control a shell or a loader affect the command only."""
    env = {
        "PATH": "/bin:/usr/bin",
        "IFS": "0123456789abcdef",
        "ENV": "/no",
        "PS4": "x",
        "LD_PRELOAD": "",
        "CDPATH": "/",
        "HOME": "/h",
    }
    stdout, stderr, status = Supervised(shell, ["cat", "/proc/self/environ"], env=env).end()
    assert status == 0, stderr
    assert {f"{name}={value}".encode() for name, value in env.items()} <= set(stdout.split(b"\0"))


def test_variables_of_the_containers_own(shell, monkeypatch):
    """Variables of the container with the names of the script's own reach the program unchanged."""
    own = (
        "id",
        "tag",
        "size",
        "status",
        "nonce",
        "count",
        "line",
        "i",
        "start",
        "session",
        "feeder",
        "n",
    )
    for name in own:
        monkeypatch.setenv(name, "own")
    shown = Supervised(shell, ["cat", "/proc/self/environ"]).end()[0].decode().split("\0")
    assert {f"{name}=own" for name in own} <= set(shown)


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_executed(shell, program, status):
    """The supervisor distinguishes a program that cannot be executed from one that exits with 126
    or 127.
    """
    call = Supervised(shell, [program])
    assert call.end()[2] == status
    assert call.frames.unstarted == status
    assert not call.frames.started
    call = Supervised(shell, ["sh", "-c", f"exit {status}"])
    assert call.end()[2] == status
    assert call.frames.unstarted is None
    assert call.frames.started


@pytest.mark.parametrize("size", [0, 70_000, 5_000_000])
def test_the_lifeline(shell, size, tmp_path, monkeypatch):
    """When the lifeline is cut, everything is killed: other sessions, empty environments, ignored
    signals, unread input.
    """
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    started = tmp_path / "started"
    tree = f"setsid sleep 999 & env -i setsid sleep {os.getpid()} & trap '' TERM INT HUP; echo > {started}; while :; do sleep 1; done"
    call = Supervised(shell, ["sh", "-c", tree], stdin=bytes(size))
    assert not eventually(lambda: not started.exists())
    _, _, status = call.cut()
    assert status == 137
    assert said(call) == ["ready", "start", "exit 137", "clean"]
    assert not eventually(lambda: processes_with(str(tmp_path)))
    assert not eventually(
        lambda: [
            p for p in Path("/proc").glob("[0-9]*/cmdline") if words(p) == f"sleep {os.getpid()}"
        ]
    )


def words(path):
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def said(call):
    """Return the supervisor's words without those that depend on timing."""
    return [word for word in call.frames.words if word not in {"held", "fed", "unread", "lost"}]


@pytest.mark.parametrize("size", [1, 65001])
@pytest.mark.parametrize(
    ("tools", "how", "word"),
    [("dd", how, "fed") for how in ("exit 1", "exit 2", "exit 127")]
    + [("dd", how, "lost") for how in ("exit 0", "kill -9 $$", "kill -11 $$", "kill -13 $$")]
    + [("dd", 'PATH=$OTHERS; head -c 1; echo "0+1 records in" >&2; exit 1', "lost")]
    + [("dd head cat", f"exit {status}", "lost") for status in (1, 2, 126, 127)],
)
@pytest.mark.parametrize("plain", ["dash", "bash"])
def test_what_became_of_stdin(plain, tools, how, word, size, tmp_path, monkeypatch):
    """If a tool that passes stdin on fails, another one passes it on completely, or the supervisor
    reports the loss. busybox is left out, because it uses its built-in tools whatever PATH says.
    """
    for tool in tools.split():
        (tmp_path / tool).write_text(f"#!/bin/sh\n{how}\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("OTHERS", os.environ["PATH"])
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = shutil.which("cat", path=os.environ["OTHERS"])
    call = Supervised([plain], [program], stdin=b"x" * size, wants=True)
    stdout, _, status = call.end()
    assert status == 0
    assert ("lost" if call.frames.lost else "fed") == word
    assert call.frames.lost or stdout == b"x" * size


@pytest.mark.parametrize("size", [1, 65001])
def test_a_stdin_of_which_a_part_does_not_come(shell, size):
    """The command exits by itself, but its input must not count as complete."""
    call = Supervised(shell, ["cat"], stdin=b"x" * size, wants=True, short=1)
    call.process.stdin.close()
    assert call.end()[0] in (b"", b"x" * (size - 1))
    assert call.frames.lost or call.frames.exit_status != 0


@pytest.mark.parametrize("plain", ["dash", "bash"])
def test_nothing_of_our_own_outlives_a_call(plain, tmp_path, monkeypatch):
    """The supervisor's own processes are gone at the end, even if grep is slow, and they do not get
    the command's variables.
    """
    mark = uuid.uuid4().hex
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", mark)
    grep = shutil.which("grep")
    slow = f'#!/bin/sh\nenv >>{tmp_path}/env\n[ -e /proc/self/fd/4 ] || sleep 1\nexec {grep} "$@"\n'
    (tmp_path / "grep").write_text(slow)
    (tmp_path / "grep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    call = Supervised([plain], ["sh", "-c", "echo; sleep 999"], env={"SECRET": "s"})
    assert call.process.stdout.read(1)
    call.cut()
    assert not processes_with(mark)
    assert "SECRET" not in (tmp_path / "env").read_text()


def test_a_command_that_does_not_wait_for_its_stdin(shell):
    """The supervisor says that input was left unread, or that it was passed on where nobody reads
    it.
    """
    for size in (1, 4096, 70_000, 5_000_000):
        call = Supervised(shell, ["true"], stdin=bytes(size))
        assert call.end() == (b"", b"", 0)
        assert {"fed", "unread"} & set(call.frames.words)
        assert not call.frames.lost


def test_what_a_command_leaves_behind(shell, tmp_path, monkeypatch):
    """A process that holds no stream is killed at once, any other when the lifeline is cut."""
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    call = Supervised(shell, ["sh", "-c", "setsid sleep 999 >/dev/null 2>&1 & exit 4"])
    assert call.end() == (b"", b"", 4)
    assert said(call) == ["ready", "start", "exit 4", "killed", "clean"]
    script = "(sleep 0.2; echo late; exec >/dev/null 2>&1; sleep 999) & exit 4"
    assert Supervised(shell, ["sh", "-c", script]).end() == (
        b"late\n",
        b"",
        4,
    )  # as soon as it holds no stream
    call = Supervised(shell, ["sh", "-c", "setsid sleep 999 & echo out; exit 4"])
    first = call.process.stderr.read1()
    while b"exit 4" not in first:
        more = call.process.stderr.read1()
        assert more
        first += more
    assert processes_with(str(tmp_path))
    call.frames.feed(first)
    assert call.cut() == (b"out\n", b"", 4)
    # either process of the supervisor may kill it
    words = [word for word in said(call) if word != "killed"]
    assert words == ["ready", "start", "exit 4", "clean"]
    assert not eventually(lambda: processes_with(str(tmp_path)))


def test_input_that_is_not_read(shell):
    """Five megabytes of unread input do not delay the command's exit."""
    assert Supervised(shell, ["true"], stdin=bytes(5_000_000)).end() == (b"", b"", 0)


@pytest.mark.parametrize("folder", ["plain", "it's \n a $(folder) *", "-"])
def test_cwd(shell, folder, tmp_path, monkeypatch):
    """The command starts in its cwd, and the shell's OLDPWD is not among its variables."""
    cwd = tmp_path / folder
    cwd.mkdir()
    monkeypatch.setenv("CDPATH", str(tmp_path))
    monkeypatch.delenv("OLDPWD", raising=False)
    stdout, stderr, status = Supervised(
        shell, ["sh", "-c", "env | grep OLDPWD; pwd -P"], cwd=str(cwd)
    ).end()
    assert (stdout.decode(), stderr, status) == (f"{cwd}\n", b"", 0)
    monkeypatch.chdir(tmp_path)
    assert (
        Supervised(shell, ["pwd", "-P"], cwd=folder if folder != "-" else "./-").end()[0].decode()
        == f"{cwd}\n"
    )


def test_a_cwd_that_is_not_there(shell, tmp_path):
    """The command is not started."""
    call = Supervised(shell, ["touch", str(tmp_path / "made")], cwd=str(tmp_path / "none"))
    assert call.end() == (b"", b"", 126)
    assert said(call) == ["ready", "nocwd", "unstarted 126", "exit 126", "clean"]
    assert not (tmp_path / "made").exists()


def test_nothing_is_taken_before_it_is_ready(shell):
    """The supervisor reports that it is ready before it gets any input."""
    process = subprocess.Popen(
        [*shell, "-c", script(), "anyspawn", "true"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr.readline() == b"\x1eanyspawn ready\n"
    process.stdin.close()
    assert process.wait(30) == 125
    process.stderr.close()


def test_arguments_are_verbatim(shell):
    """Spaces, quotes, line breaks, options and shell syntax arrive unchanged."""
    argv = ["a b", "", "-n", "--", "*", "$HOME", "'", '"', "a\nb", "\\", "é"]
    stdout, _, _ = Supervised(shell, ["printf", "%s\\0", *argv]).end()
    assert stdout.decode().split("\0")[:-1] == argv


def test_the_command_leads_a_session_of_its_own(shell):
    stdout, _, _ = Supervised(shell, ["sh", "-c", "cat /proc/self/stat; echo $$"]).end()
    fields, pid = stdout.rsplit(b")", 1)[1].split(), stdout.split()[-1]
    assert fields[3] == pid  # the session


def test_signals_are_at_their_defaults(shell):
    """A shell starts background commands with SIGINT ignored; the supervisor must undo that."""
    stdout, _, _ = Supervised(shell, ["grep", "SigIgn", "/proc/self/status"]).end()
    ignored = int(stdout.split()[1], 16)
    assert not ignored & 0b110  # SIGINT and SIGQUIT


class Live(Supervised):
    """A live program under the supervisor."""

    def __init__(self, shell, argv):
        super().__init__(shell, argv, live=True)
        self.stderr = b""

    def until(self, word):
        """Read stderr until the supervisor sends a word."""
        while word not in self.frames.words:
            data = self.process.stderr.read1()
            assert data, (self.stderr, self.frames.words)
            self.stderr += self.frames.feed(data)

    def write(self, chunk):
        self.say(chunk_line(chunk))

    def say(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def send(self, chunk):
        """Write a chunk, and wait until it was taken."""
        self.write(chunk)
        self.until(TOOK)
        self.frames.words.remove(TOOK)


def test_a_live_program(shell):
    """The supervisor reports that the program runs. Any bytes that are sent reach it at once, and
    the end of its stdin does not cut the lifeline.
    """
    call = Live(shell, ["cat"])
    call.until(RUNNING)
    for chunk in (
        bytes(range(256)),
        b"-",
        b".",
        b"-n %s %% \\n \\\\\n",
        b"\n",
        b".5",
        os.urandom(CHUNK - 1) + b".",
        bytes(range(256)) * 4 + b"\n",
    ):
        call.send(chunk)
        got = b""
        while len(got) < len(chunk):
            got += call.out_frames.feed(call.process.stdout.read1())
        assert got == chunk
    call.say(CLOSE)
    assert call.end()[1:] == (b"", 0)
    assert said(call) == ["ready", "start", RUNNING, "exit 0", "clean"]


def test_a_live_program_leaves_no_process_behind(shell):
    """The processes that write to the program's stdin are reaped: there is not a zombie for each
    chunk.
    """
    call = Live(shell, ["sh", "-c", "cat >/dev/null"])
    call.until(RUNNING)
    for _ in range(10):
        call.send(b"x")
        call.send(bytes(CHUNK))
    below = [pid for pid in zombies() if call.process.pid in ancestors(pid)]
    assert len(below) <= 1  # the last one may not be reaped yet
    call.say(CLOSE)
    assert call.end()[2] == 0


def state_and_parent(pid):
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "X", 0
    return state, int(parent)


def zombies():
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if state_and_parent(pid)[0] == "Z"]


def ancestors(pid):
    while pid > 1:
        pid = state_and_parent(pid)[1]
        yield pid


def test_the_lifeline_of_a_live_program(shell, tmp_path, monkeypatch):
    """When the lifeline is cut the program is killed, even if its stdin is full and only half a
    line was sent.
    """
    monkeypatch.setenv("ANYSPAWN_TEST_CASE", str(tmp_path))
    call = Live(shell, ["sh", "-c", "trap '' TERM; setsid sleep 999 & sleep 999"])
    call.until(RUNNING)
    call.send(bytes(CHUNK))
    call.write(bytes(CHUNK))
    call.say(b"half a l")
    call.cut()
    assert not eventually(lambda: processes_with(str(tmp_path)))


def test_a_live_program_that_ended(shell):
    """Neither a chunk that nobody reads nor a very early exit delays the status."""
    call = Live(shell, ["sh", "-c", "exit 5"])
    call.until("exit 5")
    assert call.end()[2] == 5
    call = Live(shell, ["sh", "-c", "read -r line; exit 6"])
    call.until(RUNNING)
    call.send(b"x" * CHUNK)
    call.write(b"\n")
    call.until("exit 6")
    assert call.end()[2] == 6


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_live_program_that_cannot_be_executed(shell, program, status):
    """The supervisor does not report that the program runs."""
    call = Live(shell, [program])
    assert call.end()[2] == status
    assert call.frames.unstarted == status
    assert RUNNING not in call.frames.words


def test_signals_of_a_live_program_are_at_their_defaults(shell):
    stdout, _, _ = Live(shell, ["grep", "SigIgn", "/proc/self/status"]).end()
    assert not int(stdout.split()[1], 16) & 0x1006
