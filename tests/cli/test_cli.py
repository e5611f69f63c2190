"""The command line as users run it: real processes, their streams, signals and exit statuses."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import click
import pytest

from warm import cli

CLI = [sys.executable, "-m", "anyspawn"]
RUN = [*CLI, "run"]
BOUND = 30
"""Seconds after which a call counts as hung."""

TRY_BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
bubblewrap = pytest.mark.skipif(
    not shutil.which("bwrap")
    or subprocess.run(TRY_BWRAP, capture_output=True, check=False).returncode != 0,
    reason="bwrap is not installed, or user namespaces are forbidden here",
)


def run(*args, **options):
    return cli("run", *args, **options)


def fresh(*args, **options):
    """Run the command line in an interpreter of its own."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "timeout": BOUND} | options
    return subprocess.run([*CLI, *args], check=False, **options)


def start(*args, **options):
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    } | options
    return subprocess.Popen([*RUN, *args], **options)


def is_gone(pid):
    """Whether the process has exited. Without an init, zombies of orphans stay in a container."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def most_memory(pid):
    """Return the peak memory of a process in KiB. `ru_maxrss` would include its parent's."""
    with open(f"/proc/{pid}/status") as file:
        found = [line.split()[1] for line in file if line.startswith("VmHWM:")]
    return int(found[0]) if found else 0


def wait_until(condition):
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestExitStatus:
    @pytest.mark.parametrize("status", [0, 1, 2, 42, 124, 125, 126, 127, 255])
    def test_the_programs_own_status_is_passed_on_in_silence(self, status):
        """Any exit status of the program becomes the command's, and stderr stays empty."""
        done = run("--", "sh", "-c", f"exit {status}")
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
    def test_a_signal_is_128_plus_its_number(self, number):
        """A program killed by signal N gives status 128 + N, and the message names the signal."""
        done = run("--", "sh", "-c", f"ulimit -c 0; kill -{number.value} $$")
        assert done.returncode == 128 + number
        assert done.stderr.startswith(b"anyspawn: ")
        assert number.name.encode() in done.stderr

    def test_a_timeout_is_124(self):
        """A program that times out is killed. Its output is passed on, and one line reports the
        timeout.
        """
        done = run("--timeout", "2s", "--", "sh", "-c", "echo early; exec sleep 1000")
        assert done.returncode == 124
        assert done.stdout == b"early\n"
        assert done.stderr.startswith(b"anyspawn: 'sh' timed out after")
        assert done.stderr.count(b"\n") == 1

    @pytest.mark.parametrize(
        ("program", "status", "words"),
        [
            ("no-such-program-here", 127, b"was not found on PATH"),
            ("./no-such-program-here", 127, b"does not exist"),
            ("/", 126, b"is a directory"),
            ("/etc/passwd", 126, b"is not executable"),
        ],
    )
    def test_what_cannot_be_started_is_126_or_127(self, program, status, words):
        """As in a shell, 127 means missing, and 126 means present but not executable."""
        done = run("--", program)
        assert done.returncode == status
        assert words in done.stderr
        assert done.stderr.count(b"\n") == 1

    def test_a_missing_interpreter_is_126(self, tmp_path):
        """The script was found but its interpreter was not: 126, as in bash."""
        script = tmp_path / "script"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        done = run("--", str(script))
        assert done.returncode == 126
        assert b"/no/such/interpreter" in done.stderr

    def test_a_missing_folder_is_125(self):
        """The working directory is an option of the command, so if it is missing, the status is not
        the program's.
        """
        done = run("--cwd", "/no/such/folder", "--", "true")
        assert done.returncode == 125
        assert b"/no/such/folder" in done.stderr

    def test_an_ignored_sigchld_does_not_matter(self):
        """If the command inherits an ignored SIGCHLD, it still knows the program's exit status."""
        done = subprocess.run(
            ["sh", "-c", 'trap "" CHLD; exec "$@"', "sh", *RUN, "--", "sh", "-c", "exit 7"],
            timeout=BOUND,
            check=False,
        )
        assert done.returncode == 7


class TestOptions:
    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["--timeout", "5x", "--", "true"], b"'--timeout': '5x' is not a duration"),
            (["--timeout", "0", "--", "true"], b"'--timeout': '0' is too short"),
            (["--output-limit", "ten", "--", "true"], b"'--output-limit': 'ten' is not a size"),
            (["--env", "=x", "--", "true"], b"anyspawn: --env: "),
            (["--mode", "docker_run", "--", "true"], b"docker_run: --image is missing"),
            (["--mode", "kubectl_exec", "--", "true"], b"anyspawn: --pod or --selector: give one"),
            (
                ["--mode", "docker_exec", "--container", "-x", "--", "true"],
                b"anyspawn: --container must not start with '-'",
            ),
            (
                ["--mode", "bubblewrap", "--network", "curl", "x"],
                b"--network takes no name in bubblewrap, not 'curl'; write -- before the program",
            ),
            (
                ["--mode", "docker_run", "--image", "i", "--network", "--", "true"],
                b"--network takes a network's name in docker_run",
            ),
            (["--no-such-option", "--", "true"], b"--no-such-option"),
            (
                ["--mode", "bubblewarp", "--", "true"],
                b"did you mean 'bubblewrap'? (known: bubblewrap, direct",
            ),
            (["--network", "--", "true"], b"--network is for --mode bubblewrap"),
            (["--allow-host", "a.org", "--", "true"], b"--allow-host is for --mode bubblewrap and"),
            (
                ["--mode", "bubblewrap", "--allow-host", "http://a", "--", "true"],
                b"--allow-host: allow: 'http://a' is not a host",
            ),
            (
                ["--mode", "bubblewrap", "--allow-host", "a", "--network", "--", "true"],
                b"--allow-host and --network exclude each other",
            ),
            (["--readonly", "/", "--", "true"], b"--readonly is for --mode bubblewrap"),
            (["--writable", "/", "--", "true"], b"--writable is for --mode bubblewrap"),
            ([], b"PROGRAM"),
            (["--", ""], b"argv is empty"),
        ],
    )
    def test_a_wrong_option_is_125_and_named_in_one_line(self, args, words):
        """Wrong usage of "run" must not look like the program's status 2. The line names the option
        and the help.
        """
        done = run(*args)
        assert done.returncode == 125
        assert words in done.stderr
        assert done.stderr.startswith(b"anyspawn: ")
        assert done.stderr.endswith(b"(see 'anyspawn run --help')\n")
        assert done.stderr.count(b"\n") == 1

    def test_an_unknown_subcommand_is_2(self):
        """Subcommands other than "run" have no program, so wrong usage is status 2."""
        done = cli("rnu")
        assert done.returncode == 2
        assert b"rnu" in done.stderr

    def test_arguments_after_the_program_are_its_own(self):
        """With or without "--", everything after the program belongs to it, even a second "--"."""
        for args in (["--", "echo"], ["echo"]):
            assert run(*args, "--json", "--", "-x", "--help").stdout == b"--json -- -x --help\n"

    def test_arguments_that_are_not_text_arrive(self):
        """An argument that is not UTF-8 reaches the program byte for byte."""
        assert run("--", "printf", "%s", b"\xff\xfe").stdout == b"\xff\xfe"

    def test_cwd(self, tmp_path):
        assert run(
            "--cwd", str(tmp_path), "--", "pwd", "-P"
        ).stdout.decode().strip() == os.path.realpath(tmp_path)

    def test_env_with_a_value_and_from_the_host(self):
        """NAME=VALUE is literal, and the value may contain "="; NAME alone takes the host's value,
        in every mode.
        """
        env = {**os.environ, "FROM_HOST": "a=b"}
        show = 'printf "%s|%s|%s" "$GIVEN" "$FROM_HOST" "${UNSET-none}"'
        done = run(
            "--env",
            "GIVEN=x=y",
            "--env",
            "FROM_HOST",
            "--env",
            "UNSET",
            "--",
            "sh",
            "-c",
            show,
            env=env,
        )
        assert done.stdout == b"x=y|a=b|none"

    def test_no_program_in_time_is_no_program_for_ever(self):
        """With "inf" there is no timeout, not even the default."""
        assert run("--timeout", "inf", "--", "echo", "done").stdout == b"done\n"


class TestStdin:
    def test_a_pipe_is_passed_through(self):
        """The program reads exactly the piped bytes, and then the end of file."""
        data = bytes(range(256)) * 4096
        assert run("--", "cat", stdin=data).stdout == data

    def test_nothing_is_read_ahead(self):
        """Input that the program leaves unread is still there for the next reader."""
        both = ["sh", "-c", '"$@" head -c 6; exec cat', "sh", *RUN, "--"]
        done = subprocess.run(
            both, input=b"first\nrest\n", capture_output=True, timeout=BOUND, check=True
        )
        assert done.stdout == b"first\nrest\n"

    def test_an_end_of_file_at_once(self):
        """/dev/null is an empty input."""
        done = run("--", "cat")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def test_one_that_never_ends_holds_nothing_up(self):
        """The call ends with the program, even if stdin stays open."""
        read_end, write_end = os.pipe()
        try:
            assert (
                fresh("run", "--", "echo", "done", stdin=read_end, stdout=subprocess.PIPE).stdout
                == b"done\n"
            )
        finally:
            os.close(read_end)
            os.close(write_end)

    @pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-"])
    def test_closed_streams_are_empty_ones(self, closed, tmp_path):
        """If the command starts with closed streams, the program gets /dev/null there, and its exit
        status is passed on.
        """
        program = ["sh", "-c", f"cat > {tmp_path}/in && echo x && exit 5"]
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *RUN, "--", *program]
        done = subprocess.run(shell, capture_output=True, timeout=BOUND, check=False)
        assert (done.returncode, done.stderr) == (5, b"")
        assert done.stdout == (b"" if ">&-" in closed else b"x\n")
        assert (tmp_path / "in").read_bytes() == b""


class TestOutput:
    def test_binary_output_is_exact_and_on_its_own_stream(self):
        """Every byte arrives in order, on the stream that it was written to."""
        program = (
            "import sys, os; d = bytes(range(256)) * 8000; os.write(1, d); os.write(2, d[::-1])"
        )
        done = run("--", sys.executable, "-c", program)
        data = bytes(range(256)) * 8000
        assert done.returncode == 0
        assert done.stdout == data
        assert done.stderr == data[::-1]

    def test_it_is_live(self):
        """Output arrives while the program still runs."""
        talk = ["sh", "-c", "echo one; read line; echo two"]
        with start("--timeout", "60s", "--", *talk, stdin=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"one\n"
            process.stdin.write(b"\n")
            process.stdin.close()
            assert process.stdout.readline() == b"two\n"
            assert process.wait(BOUND) == 0

    def test_there_is_no_limit_unless_asked_for_and_memory_is_bounded(self):
        """200 MB pass through without an error, in less memory than that."""
        with start("--timeout", "60s", "--", "head", "-c", "200000000", "/dev/zero") as process:
            total = most = 0
            while chunk := process.stdout.read(1 << 20):
                total += len(chunk)
                most = max(most, most_memory(process.pid))
        assert total == 200_000_000
        assert process.returncode == 0
        assert 0 < most < 120_000

    def test_more_than_the_limit_ends_the_program(self):
        """Exactly the limit is passed on, the program is killed, and the status is 125 with a line
        that says why.
        """
        done = run("--output-limit", "10k", "--", "sh", "-c", "while :; do echo y; done")
        assert done.returncode == 125
        assert done.stdout == b"y\n" * 5120
        assert (
            b"wrote more than 10240 bytes to stdout and was killed; raise --output-limit"
            in done.stderr
        )

    def test_the_limit_itself_may_be_written(self):
        """Exactly the limit is allowed, on each stream."""
        done = run("--output-limit", "5", "--", "sh", "-c", "printf 12345; printf 12345 >&2")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"12345", b"12345")

    def test_a_reader_who_leaves_ends_the_work_in_silence(self):
        """When nobody reads the output any more, the program is killed with status 141 and without
        a message.
        """
        with start("--timeout", "60s", "--", "yes") as process:
            assert process.stdout.readline() == b"y\n"
            process.stdout.close()
            assert process.wait(BOUND) == 141
            assert process.stderr.read() == b""

    def test_a_reader_who_leaves_before_the_json(self):
        """With --json, which prints everything at the end, a reader that left gives the same
        status.
        """
        read_end, write_end = os.pipe()
        os.close(read_end)
        try:
            done = fresh("run", "--json", "--", "true", stdout=write_end)
        finally:
            os.close(write_end)
        assert (done.returncode, done.stderr) == (141, b"")

    def test_a_reader_who_is_stuck_does_not_hold_the_timeout(self):
        """The timeout holds even if the output pipe stays open and unread."""
        with start("--timeout", "1s", "--", "yes") as process:
            assert process.wait(BOUND) == 124
            assert process.stderr.read().startswith(b"anyspawn: 'yes' timed out after")

    def test_a_reader_who_is_stuck_on_stderr_too(self):
        """The message about the timeout goes into the same full pipe, and must not block either."""
        with start("--timeout", "1s", "--", "yes", stderr=subprocess.STDOUT) as process:
            assert process.wait(BOUND) == 124

    def test_a_slow_reader_misses_nothing(self):
        """The program waits for a slow reader, and so does the command's exit: all
        output arrives.
        """
        with start("--timeout", "60s", "--", "head", "-c", "3000000", "/dev/zero") as process:
            with pytest.raises(
                subprocess.TimeoutExpired
            ):  # longer than the call waits for streams that other processes hold
                process.wait(1)
            assert len(process.stdout.read()) == 3_000_000
            assert process.wait(BOUND) == 0
            assert process.stderr.read() == b""

    def test_a_stream_that_others_made_non_blocking(self):
        """The command waits for a full pipe, even in non-blocking mode."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        with start(
            "--timeout", "60s", "--", "head", "-c", "1000000", "/dev/zero", stdout=write_end
        ) as process:
            os.close(write_end)
            with open(read_end, "rb") as pipe:
                assert len(pipe.read()) == 1_000_000
            assert process.wait(BOUND) == 0

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
    def test_a_full_disk_is_said(self):
        """A failing write of the output is the command's failure: 125, with the reason."""
        with open("/dev/full", "wb") as full:
            done = fresh("run", "--", "echo", "x", stdout=full)
        assert done.returncode == 125
        assert done.stderr == b"anyspawn: cannot write to stdout: No space left on device\n"

    def test_what_the_program_leaves_behind_is_ended(self):
        """A background process neither delays the call nor survives it."""
        done = run("--", "sh", "-c", "sleep 1000 & echo $!")
        assert done.returncode == 0
        assert is_gone(int(done.stdout))


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "status"),
        [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
    )
    def test_a_signal_ends_the_whole_work(self, number, status):
        """Ctrl-C and similar signals kill the program and its children; the status is 128 plus the
        signal's number.
        """
        tree = (
            "trap '' INT TERM HUP QUIT; sleep 1000 & a=$!; setsid sleep 1000 & echo $$ $a $!; wait"
        )
        with start("--timeout", "inf", "--", "sh", "-c", tree) as process:
            pids = [int(pid) for pid in process.stdout.readline().split()]
            process.send_signal(number)
            assert process.wait(BOUND) == status
            assert (
                process.stderr.read().decode()
                == f"anyspawn: received {number.name}, and killed the program\n"
            )
        assert len(pids) == 3
        assert [pid for pid in pids if not is_gone(pid)] == []

    def test_one_that_the_caller_ignores_stays_ignored(self):
        """A signal that was ignored at the start, as with nohup or "&" in a script,
        stays ignored.
        """
        with start(
            "--timeout", "inf", "--", "sh", "-c", "echo up; read line; exit 3", stdin=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        ) as process:  # fmt: skip
            assert process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGINT)
            process.stdin.close()
            assert process.wait(BOUND) == 3

    def test_with_json_there_is_no_object(self, tmp_path):
        """After a signal, stdout is empty instead of half an object."""
        started = tmp_path / "started"
        with start(
            "--json", "--timeout", "inf", "--", "sh", "-c", f"echo > {started}; exec sleep 1000"
        ) as process:
            wait_until(started.exists)
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND) == 143
            assert process.stdout.read() == b""


class TestJson:
    def test_the_object(self):
        """--json prints one object on one line, and the exit status is the same as without it."""
        done = run("--json", "--", "sh", "-c", "printf ü; printf '\\377' >&2; exit 3")
        assert done.returncode == 3
        assert done.stdout.count(b"\n") == 1
        found = json.loads(done.stdout)
        assert found.pop("duration") > 0
        assert found == {
            "returncode": 3,
            "stdout": "ü",
            "stderr_base64": base64.b64encode(b"\xff").decode(),
            "stdout_total": 2,
            "stderr_total": 1,
            "output_incomplete": False,
            "error": {"kind": "ExitError", "message": "'sh' exited with status 3"},
            "cleanup": "not needed",
        }

    def test_success_has_no_error(self):
        """On success the error is null and stderr is empty."""
        done = run("--json", "--", "echo", "x")
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["error"] is None

    @pytest.mark.parametrize(
        ("args", "status", "kind", "stdout"),
        [
            (
                ["--timeout", "2s", "--", "sh", "-c", "echo x; exec sleep 1000"],
                124,
                "SpawnTimeoutError",
                "x\n",
            ),
            (["--output-limit", "3", "--", "echo", "too long"], 125, "OutputLimitError", "too"),
            (["--", "no-such-program-here"], 127, "NotStartedError", ""),
            (["--", "sh", "-c", "kill -9 $$"], 137, "ExitError", ""),
        ],
    )
    def test_failures_have_their_kind(self, args, status, kind, stdout):
        """The kind is the name of the library's error. The earlier output is kept, and stderr has
        the message too.
        """
        done = run("--json", *args)
        found = json.loads(done.stdout)
        assert done.returncode == status
        assert found["error"]["kind"] == kind
        assert found["stdout"] == stdout
        assert done.stderr.startswith(b"anyspawn: ")

    def test_a_wrong_option_leaves_stdout_empty(self):
        """If nothing was tried, there is no outcome to print."""
        done = run("--json", "--mode", "nowhere", "--", "true")
        assert (done.returncode, done.stdout) == (125, b"")


@bubblewrap
class TestBubblewrap:
    def test_it_runs_inside(self, tmp_path):
        """Unnamed folders are hidden, a read-only one cannot be written, a writable one can. Paths
        may be relative.
        """
        (tmp_path / "read").mkdir()
        (tmp_path / "write").mkdir()
        (tmp_path / "hidden").mkdir()
        script = "ls hidden; echo x > write/file; echo x > read/file"
        done = run(
            "--mode", "bubblewrap", "--readonly", os.path.relpath(tmp_path / "read"),
            "--writable", os.path.relpath(tmp_path / "write"), "--cwd", "/", "--", "sh", "-c", f"cd {tmp_path}; {script}",
        )  # fmt: skip
        assert done.returncode != 0
        assert (tmp_path / "write" / "file").read_text() == "x\n"
        assert not (tmp_path / "read" / "file").exists()
        assert b"hidden" in done.stderr

    def test_network(self):
        """Without --network the program sees only a loopback interface; with it, the host's
        interfaces.
        """
        # interfaces of containers come and go meanwhile
        count = "import socket; print([n for _, n in sorted(socket.if_nameindex()) if not n.startswith('veth')])"
        host = subprocess.run(
            [sys.executable, "-c", count], capture_output=True, timeout=BOUND, check=True
        ).stdout
        python = [word for path in {sys.prefix, sys.base_prefix} for word in ("--readonly", path)]
        box = ["--mode", "bubblewrap", *python]
        assert run(*box, "--", sys.executable, "-c", count).stdout == b"['lo']\n"
        assert run(*box, "--network", "--", sys.executable, "-c", count).stdout == host

    def test_allowed_hosts(self):
        """With --allow-host, other hosts cannot be reached, and the outcome counts the attempts."""
        args = [
            "--json",
            "--mode",
            "bubblewrap",
            "--allow-host",
            "pypi.org",
            "--allow-host",
            "a.org:*",
        ]
        done = run(*args, "--", "curl", "-sS", "http://other.example/")
        assert "the host is not allowed" in json.loads(done.stdout)["stdout"]
        assert json.loads(done.stdout)["egress"] == {"allowed": 0, "denied": 1, "failed": 0}

    def test_exit_statuses(self):
        """The statuses are the same as in direct mode."""
        for args, status in [
            (["sh", "-c", "exit 3"], 3),
            (["sh", "-c", "kill -9 $$"], 137),
            (["no-such-program-here"], 127),
            (["/etc/passwd"], 126),
        ]:
            assert run("--mode", "bubblewrap", "--", *args).returncode == status
        assert run("--mode", "bubblewrap", "--readonly", "/no/such", "--", "true").returncode == 125

    def test_no_other_argv_shows_a_value(self):
        """The value is only in the argv of this command itself, and with "--env NAME" not even
        there.
        """
        secret = f"s3cret-{os.urandom(8).hex()}"
        wait = "echo up; read line"
        for entry, env in ((f"TOKEN={secret}", None), ("TOKEN", {**os.environ, "TOKEN": secret})):
            with start(
                "--mode", "bubblewrap", "--timeout", "inf", "--env", entry, "--", "sh", "-c", wait,
                stdin=subprocess.PIPE, env=env,
            ) as process:  # fmt: skip
                assert process.stdout.readline() == b"up\n"
                shown = [
                    pid for pid in os.listdir("/proc") if pid.isdigit() and secret in cmdline(pid)
                ]
                process.stdin.close()
                assert shown == ([str(process.pid)] if env is None else [])
                assert process.wait(BOUND) == 1


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def test_a_bwrap_that_fails_is_never_a_run_outside(tmp_path):
    """If bwrap cannot make namespaces, the status is 125, a line says which setting to look at, and
    nothing has run.
    """
    (tmp_path / "bwrap").write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n"
    )
    (tmp_path / "bwrap").chmod(0o755)
    marker = tmp_path / "ran"
    env = {**os.environ, "PATH": str(tmp_path)}
    done = run("--mode", "bubblewrap", "--", "/bin/sh", "-c", f"echo > {marker}", env=env)
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1].startswith(
        b"anyspawn: bwrap: No permissions to create new namespace; "
    )
    assert not marker.exists()


class TestModes:
    def test_each_mode_has_a_line_that_says_what_it_is(self):
        """The list is sorted, one line for each mode with the first sentence of its
        documentation.
        """
        done = cli("modes")
        assert done.returncode == 0
        lines = dict(line.split(maxsplit=1) for line in done.stdout.decode().splitlines())
        assert list(lines) == sorted(lines)
        assert lines["direct"].startswith("Run commands on this host")
        assert lines["bubblewrap"].startswith("Run each command in new namespaces")

    def test_a_broken_plugin_is_shown_as_such(self, tmp_path):
        """A plugin that cannot be loaded is listed with the reason, and the other modes are listed
        too.
        """
        folder = tmp_path / "broken-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(
            "[anyspawn.sandboxes]\nbroken = no_such_module:Sandbox\n"
        )
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        own = {"env": {**os.environ, "PYTHONPATH": path}, "stdout": subprocess.PIPE}
        done = fresh("modes", **own)
        assert done.returncode == 0
        lines = done.stdout.decode().splitlines()
        known = ["bubblewrap", "direct", "docker_exec", "docker_run", "kubectl_exec", "kubectl_run"]
        assert [line.split()[0] for line in lines] == ["broken", *known]
        assert "no_such_module" in lines[0]
        schema = fresh("schema", **own)
        assert (schema.returncode, b'"const": "broken"' in schema.stdout) == (0, True)


class TestHelp:
    def test_version(self):
        import anyspawn

        assert cli("--version").stdout.decode() == f"anyspawn {anyspawn.__version__}\n"

    def test_no_arguments_show_the_help(self):
        """Without arguments and with --help, the help shows examples."""
        shown = cli()
        assert shown.returncode == 0
        assert shown.stdout == cli("--help").stdout == cli("-h").stdout
        assert b"anyspawn run -- echo hello" in shown.stdout
        assert b"anyspawn modes" in shown.stdout

    def test_the_help_of_run_teaches(self):
        """The help has examples, every exit status and the defaults."""
        text = " ".join(run("--help").stdout.decode().split())
        for words in (
            "anyspawn run [OPTIONS] -- PROGRAM [ARGS]...",
            "Examples: anyspawn run -- sort -u < names.txt",
            "124 it timed out",
            "128+N it was killed by signal N",
            "[default: direct]",
            "[default: 10s]",
            "[default: no limit; with --json 16MiB]",
        ):
            assert words in text

    def test_the_options_of_a_mode_stand_together(self):
        """Each option is listed under its modes, and the summaries of commands are not cut."""
        sections = re.split(r"\nOptions", run("--help").stdout.decode())[1:]
        assert [section.partition("\n")[0] for section in sections] == [
            ":",
            " for bubblewrap:",
            " for docker_run and docker_exec:",
            " for kubectl_exec and kubectl_run:",
            " for several modes:",
        ]
        for section, option in zip(
            sections, ("--timeout", "--readonly", "--mount", "--pod", "--image"), strict=True
        ):
            assert re.search(rf"^  {option} ", section, re.MULTILINE)
        assert b"..." not in cli("--help").stdout.partition(b"\nCommands:")[2]

    def test_a_summary_is_the_first_sentence_of_the_commands_own_help(self):
        """This holds for every command; each is a module that is imported only when it
        is called.
        """
        from anyspawn.cli import app

        context = click.Context(app.anyspawn)
        for name, summary in app._COMMANDS.items():
            command = app.anyspawn.get_command(context, name)
            assert command.get_short_help_str(limit=1000) == summary

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("anyspawn run --mode bub", ["bubblewrap"]),
            ("anyspawn hook run agent.yaml gu", ["guard", "gust"]),
            ("anyspawn hook run agent.yaml guard --phase before_e", ["before_execution"]),
            ("anyspawn hook trace agent.yaml session_s", ["session_start"]),
            ("anyspawn hook run absent.yaml gu", []),
        ],
    )
    def test_modes_hooks_and_phases_are_completed(self, words, found, tmp_path):
        """Tab completes them in bash."""
        (tmp_path / "agent.yaml").write_text(
            "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\nspec: {hooks: {"
            + ", ".join(
                f"{name}: {{command: 'true', hook: tool}}" for name in ("gust", "guard", "a")
            )
            + "}}\n"
        )
        env = {
            "_ANYSPAWN_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = cli(env=os.environ | env, cwd=tmp_path)
        assert sorted(line.partition(",")[2] for line in done.stdout.decode().split()) == found

    def test_without_click_one_line_says_what_to_install(self):
        """Without the extra the status is 2, and there is one line instead of a traceback."""
        program = "import sys; sys.modules['click'] = None; from anyspawn.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, timeout=BOUND, check=False
        )
        assert done.returncode == 2
        assert b"pip install 'anyspawn[cli]'" in done.stderr
        assert done.stderr.count(b"\n") == 1
