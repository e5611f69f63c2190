"""How programs exit or are killed, and how the call returns."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import anyio
import pytest

from anyspawn import Cleanup, Direct, ExitError, SpawnTimeoutError, spawn
from machine import alive, eventually, kill_all

pytestmark = pytest.mark.anyio
WAIT = 0.5  # the default wait_delay


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_ended_by_a_signal(number):
    """The return code is the negative number of the signal, and the error names the signal."""
    done = await spawn(["sh", "-c", f"kill -{int(number)} $$"])
    assert done.returncode == -number
    assert number.name in str(done.error)


@pytest.mark.parametrize("status", [0, 4])
async def test_a_grandchild_that_holds_stdout(status):
    """The call waits for wait_delay, keeps the output that came, and reports that it is incomplete.
    The exit status is the program's own.
    """
    began = time.monotonic()
    done = await spawn(["sh", "-c", f"echo part; sleep 100 & exit {status}"])
    assert time.monotonic() - began >= WAIT
    assert done.output_incomplete
    assert (done.returncode, done.stdout, done.cleanup) == (status, b"part\n", Cleanup.CONFIRMED)
    assert isinstance(done.error, ExitError) == bool(status)


async def test_a_grandchild_that_lets_go_in_time_is_plain_success():
    """Output that a grandchild writes within wait_delay belongs to the call."""
    done = await spawn(
        ["sh", "-c", "(sleep 0.1; echo late) & echo early"], wait_delay=20, check=True
    )
    assert done.stdout == b"early\nlate\n"
    assert not done.output_incomplete


async def test_no_wait_at_all_keeps_what_was_written_before_the_end():
    """With wait_delay=0, everything that the program itself wrote is still read."""
    for _ in range(20):
        done = await spawn(
            ["sh", "-c", "head -c 60000 /dev/zero; sleep 100 & exit 0"], wait_delay=0
        )
        assert done.stdout_total == 60000


async def test_timeout_while_a_grandchild_writes():
    """At the timeout the whole process group is killed, and the output that it wrote is kept."""
    began = time.monotonic()
    done = await spawn(["sh", "-c", "(while :; do echo x; sleep 0.01; done) & wait"], timeout=2)
    assert isinstance(done.error, SpawnTimeoutError)
    assert isinstance(done.error, TimeoutError)
    assert done.stdout.startswith(b"x\n")
    assert done.cleanup is Cleanup.CONFIRMED
    assert 2 <= time.monotonic() - began < 2 + WAIT + 10


async def test_a_program_that_ignores_sigterm_is_killed_after_grace():
    script = "trap '' TERM INT HUP PIPE; echo ready; while :; do sleep 0.05; done"
    done = await spawn(["sh", "-c", script], output_limit=5, grace=0.3)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"ready")
    assert done.duration >= 0.3


async def test_a_program_that_handles_sigterm_ends_by_itself():
    """The call timed out, although the program then exits with status 0; the output that it writes
    in its grace is kept.
    """
    script = "trap 'echo bye; exit 0' TERM; echo hi; while :; do sleep 0.01; done"
    done = await spawn(["sh", "-c", script], timeout=2, grace=20)
    assert isinstance(done.error, SpawnTimeoutError)
    assert (done.returncode, done.stdout) == (0, b"hi\nbye\n")
    assert done.duration < 20


async def test_an_exit_that_races_the_deadline_is_no_timeout():
    """A program that exited in time has not timed out, even if the event loop was busy past the
    deadline.
    """

    def busy(stream, chunk):
        time.sleep(2.1)

    done = await spawn(["sh", "-c", "echo x"], timeout=2, on_output=busy)
    assert done.error is None


async def test_exit_near_the_deadline_is_one_or_the_other():
    """Around the deadline the call either succeeds with status 0 or times out; it never mixes the
    two.
    """
    for delay in range(8):
        done = await spawn(["sleep", "0.1"], timeout=0.097 + delay / 1000)
        if done.error is None:
            assert done.returncode == 0
        else:
            assert isinstance(done.error, SpawnTimeoutError)


async def test_a_non_zero_exit_and_a_cancellation_at_once():
    """The cancellation continues, and no other exception is raised."""
    for delay in range(10):
        with anyio.move_on_after(delay / 2000) as scope:
            await spawn(["sh", "-c", "exit 7"])
            await anyio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_writer_that_never_stops_does_not_prolong_the_call():
    """A descendant outside the group may go on writing after the program's exit: the last reading
    is bounded.
    """
    began = time.monotonic()
    done = await spawn(
        ["sh", "-c", "setsid yes & sleep 0.2"],
        wait_delay=0.3,
        overflow="truncate",
        output_limit=100,
    )
    assert done.returncode == 0
    assert done.output_incomplete
    assert time.monotonic() - began < 5


async def test_a_stopped_program_is_ended():
    """SIGSTOP does not save a program from its timeout."""
    done = await spawn(["sh", "-c", "kill -STOP $$"], timeout=1)
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.returncode == -signal.SIGKILL


async def test_a_descendant_in_a_session_of_its_own_is_found_and_ended():
    """If a setsid grandchild holds a stream, the call returns after wait_delay, and the grandchild
    is killed.
    """
    done = await spawn(["sh", "-c", "setsid sleep 100 & exit 0"])
    assert done.output_incomplete
    assert done.cleanup is Cleanup.CONFIRMED


DAEMON = "import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nos.execvp('sleep', ['sleep', '100'])"


async def test_a_daemon_that_holds_a_stream_is_found_and_ended():
    """Forking twice, as daemons do, is not a way out."""
    done = await spawn([sys.executable, "-c", DAEMON], timeout=20)
    assert (done.returncode, done.cleanup) == (0, Cleanup.CONFIRMED)


async def test_a_daemon_that_holds_nothing_is_ended_at_a_timeout():
    """When a call is cut short, anyspawn looks for every process that carries the call's mark, even
    one that closed all its streams.
    """
    done = await spawn(
        ["sh", "-c", f'{sys.executable} -c "{DAEMON}" </dev/null >/dev/null 2>&1; sleep 100'],
        timeout=1,
    )
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.CONFIRMED


async def test_what_becomes_another_program_all_the_time_is_ended(tmp_path):
    """While a process executes another program, its variables cannot be read. anyspawn must look at
    it again.
    """
    again = tmp_path / "again"
    again.write_text('#!/bin/sh\nexec "$0"\n')
    again.chmod(0o755)
    script = f"for i in 1 2 3 4; do setsid {again} <&- >/dev/null 2>&1 & echo $! >&2; done; printf %101s; sleep 100"
    for _ in range(25):
        done = await spawn(["sh", "-c", script], output_limit=100)
        assert done.cleanup is Cleanup.CONFIRMED
        pids = list(map(int, done.stderr.split()))
        left = [pid for pid in pids if alive(pid)]
        kill_all(left)
        assert (len(pids), left) == (4, [])


THREAD = """
import ctypes, os, platform, threading, time
if os.fork():
    time.sleep(100)
os.setsid()
threading.Thread(target=time.sleep, args=(100,)).start()
os.write(1, b"ready")
ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)  # the first thread alone
"""


async def test_a_process_whose_first_thread_has_ended_is_ended():
    """Such a process looks like a zombie, but its other threads still run."""
    done = await spawn([sys.executable, "-c", THREAD], output_limit=4)
    assert (done.stdout, done.cleanup) == (b"read", Cleanup.CONFIRMED)


async def test_stragglers_of_the_group_are_ended_after_a_plain_exit():
    """Processes that a program leaves in its group, with all streams closed, are killed when it
    exits.
    """
    done = await spawn(["sh", "-c", "sleep 100 <&- >&- 2>&- & echo $!"])
    assert done.error is None
    assert not done.output_incomplete
    assert done.cleanup is Cleanup.CONFIRMED
    assert not alive(int(done.stdout))


async def test_no_signal_goes_to_a_number_that_was_reaped(monkeypatch):
    """Without pidfds, a group is not signalled once its leader was reaped: the number may belong to
    another process.
    """
    from anyspawn._spawn import child

    sent = []
    monkeypatch.setattr(child.os, "killpg", lambda pid, number: sent.append(pid))
    other = subprocess.Popen(["sleep", "100"], start_new_session=True)
    try:
        ours = child.Child(other)
        ours.close()
        # The child was reaped, and its number now belongs to another process.
        monkeypatch.setattr(child, "_is_our_child", lambda pid: False)
        assert not ours.signal_group(signal.SIGKILL)
        assert sent == []
        assert alive(other.pid)
    finally:
        other.kill()
        other.wait()


ROOT = "import os, time; os.setresuid(0, 0, 0); print(os.getpid(), flush=True); time.sleep(100)"
SPAWN_ROOT = """
import sys, anyio, anyspawn
python, code, backend = sys.argv[1:]
async def main():
    done = await anyspawn.spawn([python, "-c", code], timeout=3)
    print(type(done.error).__name__, done.returncode, done.cleanup.name, done.stdout.decode())
anyio.run(main, backend=backend)
"""


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to make a program that an ordinary user may not signal"
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_may_not_be_signalled_is_given_up_in_bounded_time(unprivileged, backend):
    """A set-user-ID program refuses our signals. The call still returns, and reports that its
    clean-up is unconfirmed.
    """
    python = unprivileged.folder / "python"
    shutil.copy(os.path.realpath("/usr/bin/python3"), python)
    python.chmod(0o4755)
    began = time.monotonic()
    done = unprivileged.run(SPAWN_ROOT, str(python), ROOT, backend)
    kind, returncode, cleanup, pid = done.stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert (kind, returncode, cleanup) == ("SpawnTimeoutError", "None", "UNCONFIRMED")
    assert time.monotonic() - began < 40


async def test_own_session_and_group():
    code = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())"
    assert (await spawn([sys.executable, "-c", code], check=True)).stdout == b"True\n"


async def test_an_exact_environment_has_no_mark():
    """With inherit_env=False the program gets the variables of env only, without the mark."""
    done = await spawn(
        ["/usr/bin/env"], sandbox=Direct(inherit_env=False), env={"A": "1"}, check=True
    )
    assert done.stdout == b"A=1\n"


async def test_without_a_mark_an_escape_is_told_as_unconfirmed():
    """Without a mark, a descendant outside the group cannot be found; the outcome must not claim
    that it is gone.
    """
    script = 'setsid sleep 100 & until read -r _ _ _ _ group _ </proc/$!/stat && [ "$group" = $! ]; do :; done; echo $!'
    done = await spawn(["/bin/sh", "-c", script], sandbox=Direct(inherit_env=False))
    assert done.cleanup is Cleanup.UNCONFIRMED
    os.kill(int(done.stdout), signal.SIGKILL)
    assert not eventually(lambda: alive(int(done.stdout)))
