"""The resident's script on each supported shell: dash, bash, a bash that keeps here-documents in
files, and busybox's ash.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from anyspawn.supervisor import resident_begin, resident_script
from anyspawn.supervisor.encode import SHORT, call_line, task_line
from cases import NASTY
from frames import Frames
from machine import eventually, processes_with

OLDER = {"BASH_COMPAT": "5.0"}
SHELLS = {
    "dash": ("dash", {}),
    "bash": ("bash", {}),
    "bash of old": ("bash", OLDER),
    "busybox": ("busybox", {}),
}


class Resident:
    """A resident as a client in a container would run it, and its caller."""

    def __init__(self, folder, program, env, *, known):
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"there is no {program}")
        (folder / "sh").symlink_to(path)
        pipe = subprocess.PIPE
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **env}
        self.process = subprocess.Popen(
            [folder / "sh", "-c", resident_script()],
            env={name: value for name, value in env.items() if value is not None},
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
        )
        self.next = resident_begin(uuid.uuid4().hex)
        self.err = self.out = self.sender = None
        self.known = known

    def begin(self, argv, *, env=None, stdin=b"", cwd=None):
        told = task_line(argv, env or {}, stdin, cwd)
        size = len(stdin) if len(stdin) > SHORT else 0
        nonce = uuid.uuid4().hex
        self.out, self.err = Frames(nonce, begun=self.next == b"x\n"), Frames(nonce)
        self.stdout = self.stderr = b""
        known = "yes" if self.known and len(told) < 65536 else "ask"
        self.say(self.next + call_line(told, nonce, known))
        self.next = b"x\n"
        if size:
            self.until(lambda: self.err.send)
            self.sender = threading.Thread(target=self.say, args=(stdin,))
            self.sender.start()

    def say(self, words):
        view = memoryview(words)
        while view:
            view = view[self.process.stdin.write(view) :]

    def until(self, over):
        while not over():
            data = os.read(self.process.stderr.fileno(), 65536)
            assert data, self.err.words
            self.stderr += self.err.feed(data)

    def read(self, over):
        while not over():
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self.out.words
            self.stdout += self.out.feed(data)

    def end(self):
        """Return the command's outputs and its status, and whether the supervisor reported a clean
        end.
        """
        self.read(lambda: self.out.over)
        self.until(lambda: self.err.over)
        if self.sender is not None:
            self.sender.join()
            self.sender = None
        return self.stdout, self.stderr, self.err.exit_status, self.err.clean

    def run(self, argv, **options):
        self.begin(argv, **options)
        return self.end()

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture(params=[False, True], ids=["program unknown", "known"])
def known(request):
    return request.param


@pytest.fixture(params=SHELLS)
def make(request, tmp_path, known):
    made = []
    program, settings = SHELLS[request.param]

    def make_one(**env):
        folder = tmp_path / f"{len(made)}"
        folder.mkdir()
        made.append(Resident(folder, program, {**settings, **env}, known=known))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def test_bash_of_old():
    """An older bash keeps a here-document in a file; a newer one does so in its
    compatibility mode.
    """
    script = "exec 5<<E\n-\nE\n[ -p /proc/self/fd/5 ]"
    assert (
        subprocess.run(["bash", "-c", script], env={**os.environ, **OLDER}, check=False).returncode
        == 1
    )


def test_one_after_the_other(make):
    """Each command has its own stdin, variables, working directory, session and status."""
    one = make()
    script = "cat; echo $A; pwd -P; cat /proc/$$/stat; echo err >&2; exit $A"
    for number, cwd in ((1, "/tmp"), (2, "/etc"), (3, None)):
        done = one.run(
            ["sh", "-c", script], env={"A": str(number)}, stdin=b"in%d\n" % number, cwd=cwd
        )
        told = done[0].decode().splitlines()
        assert (told[:2], done[1:]) == ([f"in{number}", str(number)], (b"err\n", number, True))
        assert told[2] == (cwd or os.getcwd())
        pid, session = told[3].split()[0], told[3].split(")")[1].split()[3]
        assert pid == session
    assert one.run(["cat"]) == (b"", b"", 0, True)


def test_stdin_of_any_size(make):
    """Input arrives byte for byte, and unread input does not reach the next command."""
    one = make()
    for size in (1, 255, SHORT, SHORT + 1, 65536, 1_000_000):
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        assert one.run(["cat"], stdin=data) == (data, b"", 0, True)
        assert one.run(["sh", "-c", "exit 3"], stdin=data) == (b"", b"", 3, True)
        assert one.run(["cat"], stdin=b"%s \\044 -n") == (b"%s \\044 -n", b"", 0, True)


def test_arguments_and_variables_at_their_worst(make):
    """Arguments and variables arrive byte for byte."""
    one = make()
    words = [
        "",
        "-n",
        "a b",
        "a\nb\n",
        "'",
        '"',
        "$(id)",
        "`id`",
        "\\",
        "\\n",
        "*",
        "~",
        "!",
        "é",
        "\udcff\udc81\udc88",
        "=",
        "#",
    ]
    show = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    assert one.run([sys.executable, "-c", show, *words])[0] == b"\0".join(map(os.fsencode, words))
    env = {name: value for name, value in NASTY.items() if name not in ("PATH", "HOME")}
    shown = one.run(["cat", "/proc/self/environ"], env=env)[0]
    found = dict(entry.split("=", 1) for entry in os.fsdecode(shown).split("\0") if "=" in entry)
    assert {name: found.get(name) for name in env} == env
    assert not {name for name in found if name.startswith("ANYSPAWN_")} - {
        "ANYSPAWN_ID",
        *os.environ,
    }


def test_variables_of_the_containers_own(make):
    """Variables of the container with the names of the script's own reach the program unchanged."""
    own = dict.fromkeys(
        ("id", "tag", "size", "status", "nonce", "known", "start", "session", "first", "round"),
        "own",
    )
    shown = make(**own).run(["cat", "/proc/self/environ"])[0].decode().split("\0")
    assert {f"{name}=own" for name in own} <= set(shown)


def test_what_cannot_be_started(make, known):
    """The supervisor says that the program was not started, and continues. If it knew the program,
    it says that it is gone.
    """
    one, word = make(), "gone" if known else "unstarted"
    for argv, cwd, words in (
        (["no-such-program"], None, {f"{word} 127"}),
        (["/etc"], None, {f"{word} 126"}),
        (["true"], "/no/such", {"nocwd", "unstarted 126"}),
        (["true", "x" * 200_000], None, {"unstarted 126"}),
    ):
        one.run(argv, cwd=cwd)
        assert words <= set(one.err.words), one.err.words
        assert one.err.started == (not any(word.startswith("unstarted") for word in words))
        assert one.err.clean
    assert one.run(["sh", "-c", "exit 127"]) == (b"", b"", 127, True)
    assert one.err.started


def test_what_any_exec_executes(make, known, tmp_path):
    """The supervisor reports programs that any exec can execute. A script without #! is not one of
    them, because only some shells run it.
    """
    one, path = make(), {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name, text, fit in (("plain", "echo", False), ("script", "#!/bin/sh\necho", True)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        for program in (name, str(tmp_path / name)):
            assert one.run([program], env=path)[2:] == (0, True) or known
            assert one.err.fit == (fit and not known)
    one.run([sys.executable, "-c", ""])
    assert one.err.fit != known


@pytest.mark.parametrize("size", [0, SHORT + 1])
def test_what_gives_the_turn_is_killed(make, size):
    """If the process that starts the next command is killed, the resident exits, and the caller
    starts another one.
    """
    one = make()
    one.run(["true"])
    one.next = one.next.replace(
        b"x",
        b"x\necho() { case $1 in [yh]) kill -9 $(exec sh -c 'command echo $PPID') ;; esac; command echo \"$@\"; }",
    )
    one.begin(["cat"], stdin=bytes(size))
    one.process.stdin.flush()
    one.process.wait(30)


def test_the_reader_of_a_long_stdin_fails(make, tmp_path):
    """The supervisor reports the loss, and does not execute the unread input as commands."""
    one, mark = make(), tmp_path / "mark"
    one.run(["true"])
    one.next += b"dd() { [ \"$1\" != iflag=fullblock ] || return 0; command kill -9 $(exec sh -c 'command echo $PPID'); }\n"
    one.begin(["cat"], stdin=b"x\n" * SHORT + b"touch %s\n" % bytes(mark) + b"x\n" * 100_000)
    one.until(lambda: one.err.lost and one.err.exit_status is not None)
    one.process.stdin.close()
    one.process.wait(30)
    assert not mark.exists()


def test_where_no_path_is_set(make):
    """Without PATH, a program is found where the shell finds it, every time."""
    one = make(PATH=None)
    for _ in range(2):
        assert one.run(["cat"], stdin=b"x") == (b"x", b"", 0, True)
        one.run(["no-such-program"])
        assert {"unstarted 127", "gone 127"} & set(one.err.words)


def test_what_is_left_behind_is_ended(make):
    """A resident kills what its command left, and does not touch the commands of other
    residents.
    """
    one, other = make(), make()
    one.run(["true"])
    other.run(["true"])
    other.begin(["sh", "-c", "echo begun; read -r line; echo $line"], stdin=b"")
    other.until(lambda: other.err.begun)
    mark = uuid.uuid4().hex
    for script in (
        "setsid sleep 999 >&- 2>&- & exit 4",
        "env -i sh -c 'sleep 999 >&- 2>&- &' & wait; exit 4",
    ):
        other.end()
        other.begin(["sh", "-c", f"echo {mark}; cat"], stdin=b"x" * 100_000)
        other.until(lambda: other.err.begun)
        assert one.run(["sh", "-c", script], env={"MARK": mark})[2:] == (4, True)
        assert not [
            pid
            for pid in processes_with(mark)
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        ]
        assert other.end()[0] == f"{mark}\n".encode() + b"x" * 100_000


def test_ended_by_a_word(make):
    """The caller asks for SIGTERM, then SIGKILL; the resident continues."""
    one = make()
    one.begin(
        [
            "sh",
            "-c",
            "trap 'echo term' TERM; setsid sleep 999 & echo ready; while :; do sleep 0.1; done",
        ]
    )
    one.read(lambda: b"ready" in one.stdout)
    one.say(b"t\n")
    one.read(lambda: b"term" in one.stdout)
    one.say(b"k\n")
    stdout, _, *rest = one.end()  # on stderr, shells may report that sleep was terminated
    assert (stdout, rest) == (b"ready\nterm\n", [137, True])
    assert one.run(["echo", "on"]) == (b"on\n", b"", 0, True)


def test_the_caller_goes_away(make):
    """When the caller goes away, during a command or between two, nothing is left."""
    for busy in (True, False):
        one = make(MARK=(mark := uuid.uuid4().hex))
        one.run(["true"])
        if busy:
            one.begin(["sh", "-c", "setsid sleep 999 & sleep 999"])
            one.until(lambda one=one: one.err.begun)
        one.process.stdin.close()
        assert not eventually(lambda mark=mark: processes_with(mark), 30)


def test_what_a_command_was_given_is_in_no_memory_afterwards(make):
    """No process of the resident that stays may read a command's variables or input."""
    one, secrets = make(), [uuid.uuid4().hex, uuid.uuid4().hex]
    for _ in range(2):
        one.run(["cat"], env={"SECRET": secrets[0]}, stdin=secrets[1].encode())
    one.run(["true"])
    inside = [one.process.pid, *children_of(one.process.pid)]
    assert len(inside) >= 2
    for pid in inside:
        assert not [secret for secret in secrets if secret.encode() in memory_of(pid)]


def children_of(pid):
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def memory_of(pid):
    """Return the contents of a process's writable memory."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            where, what, *_ = line.split()
            if what.startswith("rw"):
                begin, end = (int(number, 16) for number in where.split("-"))
                memory.seek(begin)
                parts.append(memory.read(end - begin))
    return b"".join(parts)


def test_another_shell_says_what_is_wrong(tmp_path):
    """A shell that keeps here-documents in files and has no other way to make a pipe is refused,
    with the reason.
    """
    shell = tmp_path / "sh"
    begun = ["dash", "-c", 'printf "$1"', "sh", resident_begin("0" * 32)]
    script = subprocess.run(begun, capture_output=True, text=True, check=True).stdout
    script = re.sub(r"\[ -p [^]]*\]", "false", script).replace("$BASH_VERSION", "")
    shell.write_text("#!/bin/dash\n" + script)
    done = subprocess.run(
        ["/bin/dash", str(shell)],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    assert (done.returncode, b"here-documents in pipes" in done.stderr) == (125, True)
