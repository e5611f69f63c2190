"""System calls that the filter forbids, and programs that must work under it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import anyspawn._seccomp
from anyspawn import Bubblewrap, spawn
from anyspawn.exceptions import ConfigError
from anyspawn.sandboxes import bubblewrap
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]

SHIPPED = Path(anyspawn._seccomp.__file__).parent
COMPILER = Path(__file__).parents[2] / "tools/compile_filters.py"
NUMBERS = {
    "x86_64": {
        "keyctl": 250,
        "add_key": 248,
        "ptrace": 101,
        "perf_event_open": 298,
        "process_vm_readv": 310,
        "mount": 165,
        "setns": 308,
        "syslog": 103,
    },
    "aarch64": {
        "keyctl": 219,
        "add_key": 217,
        "ptrace": 117,
        "perf_event_open": 241,
        "process_vm_readv": 270,
        "mount": 40,
        "setns": 268,
        "syslog": 116,
    },
}[platform.machine()] | {"bpf": 280 if platform.machine() == "aarch64" else 321}
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

CALL = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
numbers = [int(word, 0) for word in sys.argv[1:]]
print(libc.syscall(*(ctypes.c_long(number) for number in numbers)), ctypes.get_errno())
"""


async def call(*numbers, sandbox=None):
    """Make a system call inside and return its errno, or 0."""
    argv = ["/usr/bin/python3", "-c", CALL, *map(str, numbers)]
    done = await spawn(argv, sandbox=sandbox or Bubblewrap(), check=True)
    result, errno = map(int, done.stdout.split())
    return errno if result == -1 else 0


@pytest.mark.parametrize("name", sorted(NUMBERS))
async def test_what_no_program_needs_is_forbidden(name):
    """The filter refuses keyrings, tracing and the like before the kernel looks at the
    arguments.
    """
    assert await call(NUMBERS[name], -1, 0, 0) == EPERM


async def test_io_uring_and_clone3_look_absent():
    """io_uring and clone3 seem not to exist. A filter cannot see the flags of clone3, so programs
    must fall back to clone.
    """
    assert await call(425, 1, 0) == ENOSYS
    assert await call(435, 0, 0) == ENOSYS


@pytest.mark.parametrize("flag", [0x10000000, 0x20000, 0x40000000, 0x10000000 | 0x20000])
async def test_no_new_namespaces(flag):
    """Neither unshare nor clone can make a namespace."""
    unshare, clone = (97, 220) if platform.machine() == "aarch64" else (272, 56)
    assert await call(unshare, flag) == EPERM
    assert await call(clone, flag | 17, 0, 0, 0, 0) == EPERM


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x7_0000_5412])
async def test_no_input_is_put_into_a_terminal(request_):
    """TIOCSTI and TIOCLINUX are refused, even with high bits set that the kernel ignores."""
    ioctl = 29 if platform.machine() == "aarch64" else 16
    assert await call(ioctl, 0, request_, 0) == EPERM


@pytest.mark.parametrize("family", [40, 38, 17, 31, 21, 40 | 1 << 32])
async def test_no_exotic_sockets(family):
    """AF_VSOCK, AF_ALG, AF_PACKET, AF_BLUETOOTH and AF_RDS do not exist inside."""
    socket = 198 if platform.machine() == "aarch64" else 41
    assert await call(socket, family, 1, 0) == EAFNOSUPPORT


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86_64 alone")
async def test_the_x32_calls_are_none():
    """The second table of system calls on x86_64 does not bypass the filter."""
    assert await call(0x40000000 | 250, 0, 0) == ENOSYS


UNIX = "import socket; socket.socketpair(); socket.socket(socket.AF_UNIX).connect({!r})"


async def test_a_socket_of_the_host_cannot_be_connected_to(tmp_path):
    """A socket in a bound folder is visible, but the program cannot create a socket to connect to
    it. It can create a socket pair.
    """
    import socket

    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen()
        for sandbox in (Bubblewrap(readonly=[tmp_path]), Bubblewrap(writable=[tmp_path])):
            done = await spawn(["/usr/bin/python3", "-c", UNIX.format(path)], sandbox=sandbox)
            assert b"PermissionError" in done.stderr.splitlines()[-1]


async def test_unix_sockets_of_its_own():
    """If no folder of the host is bound, a program can use Unix sockets, because all of them are
    its own.
    """
    script = """
import multiprocessing as m
if __name__ == "__main__":
    m.set_start_method("forkserver")
    with m.Manager() as manager:
        print(len(manager.list([1, 2])))
"""
    argv = ["sh", "-c", f"cat > /tmp/x.py <<'E'\n{script}\nE\npython3 /tmp/x.py"]
    done = await spawn(argv, sandbox=Bubblewrap(), check=True)
    assert done.stdout == b"2\n"


async def test_the_keyring_of_the_host_is_out_of_reach():
    """A key in the session keyring can neither be found nor changed from inside."""
    done = await call(NUMBERS["keyctl"], 0, -3, 0)
    assert done == EPERM


PROGRAMS = {
    "python": "python3 -c 'import threading, subprocess as s; t = threading.Thread(); t.start();"
    ' t.join(); print(s.check_output(["echo", "ok"]).decode())\'',
    "bash": "bash -c 'x=$(echo ok | cat); echo <(true) >/dev/null; echo $x'",
    "git": "cd /tmp && git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q"
    " --allow-empty -m m && git gc -q && git log --format=%s && echo ok",
    "gcc": "cd /tmp && echo 'int main(){return 0;}' > a.c && gcc a.c -o a && ./a && echo ok",
    "node": 'node -e \'new (require("worker_threads").Worker)("1", {eval: true});'
    ' require("child_process").exec("echo ok", (e, out) => console.log(out))\'',
    "go": r"""
export GOCACHE=/tmp/cache GOPATH=/tmp/go CGO_ENABLED=0 && mkdir /tmp/a && cd /tmp/a
printf 'module a\ngo 1.19\n' >go.mod
printf 'package main\nfunc main() { c := make(chan int); go func() { c <- 1 }(); <-c }\n' >a.go
printf 'package main\nimport "testing"\nfunc TestA(t *testing.T) { main() }\n' >a_test.go
go vet . && go test . && go run . && echo ok
""",
    "jq": 'echo \'{"a": "ok"}\' | jq -r .a',
}


@pytest.mark.parametrize(
    "name", [name for name in PROGRAMS if Path("/usr/bin", name).exists() or name == "python"]
)
async def test_ordinary_programs_run(name):
    """Compilers, interpreters and other tools work without the forbidden calls."""
    sandbox = Bubblewrap(seccomp="required", default_timeout=100)
    done = await spawn(["sh", "-c", PROGRAMS[name]], sandbox=sandbox)
    assert done.error is None, done.stderr
    assert done.stdout.split()[-1] == b"ok"


CARGO = """
export CARGO_HOME=/tmp/cargo && cd /tmp
cargo new -q --vcs none a && cd a && cargo run -q --offline && cargo test -q --offline && echo ok
"""


@pytest.mark.skipif(not shutil.which("cargo"), reason="needs cargo")
async def test_cargo_runs(tmp_path):
    """cargo compiles, runs and tests a program with its toolchain bound, which means without Unix
    sockets other than pairs.
    """
    argv = ["rustc", "--print", "sysroot"]
    toolchain = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    script = f"export PATH={toolchain}/bin:$PATH\n{CARGO}"
    sandbox = Bubblewrap(seccomp="required", readonly=[toolchain], default_timeout=60)
    done = await spawn(["sh", "-c", script], sandbox=sandbox)
    assert done.error is None, done.stderr
    assert done.stdout.split()[-1] == b"ok"


@pytest.mark.skipif(
    subprocess.run(["/usr/bin/python3", "-c", "import seccomp"], capture_output=True).returncode
    != 0,
    reason="needs python3-seccomp",
)
def test_the_filters_are_what_the_compiler_makes(tmp_path):
    """The shipped filters are exactly the compiler's output."""
    subprocess.run(["/usr/bin/python3", COMPILER, tmp_path], check=True)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in SHIPPED.glob("*.bpf")}
    assert len(made) == 4


async def test_a_filter_of_ones_own(tmp_path):
    """A custom filter replaces anyspawn's; this one allows everything."""
    allow = tmp_path / "allow.bpf"
    allow.write_bytes(bytes.fromhex("0600000000 00ff7f".replace(" ", "")))
    sandbox = Bubblewrap(seccomp=allow)
    assert await call(NUMBERS["keyctl"], 0, -3, 0, sandbox=sandbox) != EPERM


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "seccomp must be 'auto', 'required' or the path of a filter, not bool"),
        ("none", "seccomp: 'none' is not an absolute path"),
    ],
)
def test_what_is_no_filter(value, message):
    """The error says what is expected."""
    with pytest.raises(ConfigError, match=message):
        Bubblewrap(seccomp=value)


async def test_a_file_that_is_no_filter(tmp_path):
    """A file that is missing or not a filter is an error before anything starts."""
    with pytest.raises(ConfigError, match=r"seccomp: .* cannot be read"):
        await spawn(["true"], sandbox=Bubblewrap(seccomp=tmp_path / "none"))
    (tmp_path / "text").write_text("no")
    with pytest.raises(ConfigError, match="is not a compiled filter"):
        await spawn(["true"], sandbox=Bubblewrap(seccomp=tmp_path / "text"))


async def test_another_processor(monkeypatch, caplog):
    """On a processor without a filter, seccomp="required" starts nothing. Otherwise programs run
    without one, and the log says so once.
    """
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    bubblewrap._warn_of_no_filter.cache_clear()
    with pytest.raises(ConfigError, match="there is no filter for a riscv64 processor"):
        await spawn(["true"], sandbox=Bubblewrap(seccomp="required"))
    for _ in range(2):
        argv = ["grep", "Seccomp:", "/proc/self/status"]
        done = await spawn(argv, sandbox=Bubblewrap(), check=True)
        assert done.stdout == b"Seccomp:\t0\n"
    (record,) = [record for record in caplog.records if record.name == "anyspawn.bubblewrap"]
    assert "no filter of system calls for a riscv64 processor" in record.getMessage()


async def test_nothing_is_said_where_there_is_a_filter(caplog):
    """With a filter, nothing is logged."""
    await spawn(["true"], sandbox=Bubblewrap(), check=True)
    assert [record for record in caplog.records if record.name == "anyspawn.bubblewrap"] == []
