"""The host's files that a program in the sandbox can read and write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import anyspawn
from anyspawn import Bubblewrap, Cleanup, ConfigError, NotStartedError, spawn
from anyspawn.sandboxes._etc import etc_folder
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]

WALK = """
import json, os, stat

def readable(path, kind):
    try:
        if kind == stat.S_IFDIR:
            os.listdir(path)
        elif kind == stat.S_IFREG:
            with open(path, "rb") as file:
                file.read(1)
        else:
            return False
    except OSError:
        return False
    return True

OTHER = {stat.S_IFDIR: 0o5, stat.S_IFREG: 0o4}
private, seen, own = [], 0, os.stat("/").st_dev
for top, folders, names in os.walk("/"):
    if top == "/":
        folders.remove("proc")
    for name in (*folders, *names):
        path = os.path.join(top, name)
        status = os.lstat(path)
        kind, seen = stat.S_IFMT(status.st_mode), seen + 1
        needed = OTHER.get(kind, 0)
        if status.st_mode & needed == needed or status.st_dev == own:
            continue
        if readable(path, kind):
            private.append(path)
print(json.dumps([seen, private, sorted(os.listdir("/etc"))]))
"""
"""Prints how many files there are, which of them the program can read although not everybody may,
and the names in /etc.
"""

OPENLY = {
    "alternatives", "bash.bashrc", "ca-certificates", "crypto-policies", "fonts", "group", "hosts",
    "ld.so.cache", "localtime", "mime.types", "mtab", "nsswitch.conf", "os-release", "passwd",
    "pki", "protocols", "resolv.conf", "services", "ssl", "timezone",
}  # fmt: skip


def check(seen, private, etc):
    assert seen > 1000
    assert not private
    assert {name for name in etc if not name.startswith(("java-", "ld-musl"))} <= OPENLY


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
async def test_nothing_private_can_be_read():
    """The program can read only files that everybody may read. /etc has only what programs need,
    and there is no /opt.
    """
    sandbox = Bubblewrap(bind_program=True)
    done = await spawn([sys.executable, "-c", WALK], sandbox=sandbox, timeout=110, check=True)
    check(*json.loads(done.stdout))
    done = await spawn(["ls", "/opt", "/etc/machine-id"], sandbox=Bubblewrap())
    assert (done.returncode, done.stdout) == (2, b"")


def test_nor_by_a_sandbox_of_an_ordinary_user(unprivileged):
    """The same holds if a user without privileges starts the sandbox."""
    if os.getuid() != 0:
        pytest.skip("this user is an ordinary one, and the other test has shown it")
    run = (
        "import anyio, sys\n"
        "from anyspawn import Bubblewrap, spawn\n"
        "argv = ['/usr/bin/python3', '-c', sys.argv[1]]\n"
        "done = anyio.run(lambda: spawn(argv, sandbox=Bubblewrap(), timeout=55, check=True))\n"
        "print(done.stdout.decode())\n"
    )
    check(*json.loads(unprivileged.run(run, WALK).stdout))


async def test_the_one_user():
    """Lookups find the program's own user, nobody and localhost, but no other user of the host."""
    script = "id -un; id -gn; getent passwd | wc -l; getent hosts localhost | wc -l; cat /etc/*shadow; cat /etc/resolv.conf"
    done = await spawn(["sh", "-c", script], sandbox=Bubblewrap())
    user = "root" if os.getuid() == 0 else "user"
    assert done.stdout.decode().split() == [user, user, "2", "1"]


async def test_the_kernels_command_line_is_covered():
    """/proc/cmdline is hidden, because it may hold secrets."""
    done = await spawn(["cat", "/proc/cmdline"], sandbox=Bubblewrap())
    assert (done.returncode, done.stdout) == (1, b"")


SECRETS = {
    ".env": "A=1",
    ".env.local": "A=1",
    ".aws/credentials": "key",
    ".git/config": "[remote]\nurl = https://me:token@example.org/x",
    ".netrc": "machine x password y",
    ".ssh/id_ed25519": "key",
    "pip.conf": "[global]\nindex-url = https://u:p@example.org/simple",
}
HARMLESS = {
    ".env.example": "A=",
    "main.py": "pass",
    "sub/.git/config": "[core]\nbare = false",
    "sub/pip.conf": "[global]\nindex-url = https://example.org/simple",
}


def fill(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("how", ["readonly", "writable"])
async def test_secrets_in_a_folder_are_covered(tmp_path, how):
    """Files with secrets are hidden, harmless ones are visible, and the host's files do
    not change.
    """
    fill(tmp_path, SECRETS | HARMLESS)
    script = "for f; do cat $f >/dev/null 2>&1 && echo $f; done"
    names = [*SECRETS, *HARMLESS]
    box = Bubblewrap(**{how: [{tmp_path: "/x"}]}, workdir="/x")
    done = await spawn(["sh", "-c", script, "sh", *names], sandbox=box)
    assert done.stdout.decode().split() == list(HARMLESS)
    if how == "writable":
        done = await spawn(["sh", "-c", "rm -rf .env .ssh; echo x >.env"], sandbox=box)
    for name, text in SECRETS.items():
        assert (tmp_path / name).read_text() == text


async def test_secrets_can_be_had_by_name(tmp_path):
    """Naming a secret file shows that file only, even inside a hidden folder."""
    fill(tmp_path, SECRETS)
    own = [tmp_path / ".env", tmp_path / ".ssh/id_ed25519"]
    box = Bubblewrap(readonly=[tmp_path, *own], workdir=tmp_path)
    done = await spawn(["sh", "-c", "cat .env .ssh/id_ed25519 .netrc"], sandbox=box)
    assert done.stdout == b"A=1key"


async def test_a_link_to_a_secret_does_not_disturb(tmp_path):
    """A link to a secret does not break the sandbox: it points to nothing inside, or to a file that
    is hidden itself.
    """
    fill(tmp_path, {"box/ssh/key": "k", "other": "o"})
    (tmp_path / "box/.env").symlink_to(tmp_path / "other")
    (tmp_path / "box/.ssh").symlink_to("ssh")
    box = Bubblewrap(readonly=[tmp_path / "box"], workdir=tmp_path / "box")
    done = await spawn(["cat", ".env"], sandbox=box)
    assert (done.returncode, done.stdout) == (1, b"")


async def test_what_the_host_would_run_later_is_read_only(tmp_path):
    """Git's hooks and settings, shells' start-up files and the like are read-only in a writable
    folder, unless they are named as writable.
    """
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    later = {".bashrc": "x", ".vscode/tasks.json": "x", ".github/workflows/ci.yml": "x"}
    fill(tmp_path, later | {"file": "x"})
    names = [".git/config", ".git/hooks/pre-commit", *later, ".github/workflows/new.yml", "file"]
    script = "for f; do echo evil >$f && echo $f; done 2>/dev/null"
    box = Bubblewrap(writable=[tmp_path], workdir=tmp_path)
    done = await spawn(["sh", "-c", script, "sh", *names], sandbox=box)
    assert done.stdout == b"file\n"
    done = await spawn(["git", "status", "--short"], sandbox=box, check=True)
    assert b"?? file" in done.stdout
    assert not (tmp_path / ".git/hooks/pre-commit").exists()
    named = Bubblewrap(writable=[tmp_path, tmp_path / ".bashrc"], workdir=tmp_path)
    done = await spawn(["sh", "-c", script, "sh", *names], sandbox=named)
    assert done.stdout == b".bashrc\nfile\n"


def test_the_folder_of_etc_is_gone_with_its_process(tmp_path):
    """The folder is removed when its process exits. If the process was killed, the next one that
    makes such a folder removes it.
    """
    code = (
        "import anyio, os, signal, sys\n"
        "from anyspawn import Bubblewrap, spawn\n"
        "anyio.run(lambda: spawn(['true'], sandbox=Bubblewrap(), check=True))\n"
        "print(*os.listdir(os.environ['TMPDIR']))\n"
        "sys.stdout.flush()\n"
        "if sys.argv[1] == 'killed':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    def run(how):
        return subprocess.run(
            [sys.executable, "-c", code, how],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        ).stdout.split()

    (first,) = run("exits")
    assert not list(tmp_path.iterdir())
    (killed,) = run("killed")
    assert [path.name for path in tmp_path.iterdir()] == [killed]
    (last,) = run("exits")
    assert len({first, killed, last}) == 3
    assert not list(tmp_path.iterdir())


@pytest.fixture
def open_folder():
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize("resident", [0, 1])
async def test_another_user(open_folder, resident):
    """The program has that user's rights to the bound folders, not root's, and owns the files that
    it makes.
    """
    if os.getuid() != 0:
        with pytest.raises(ConfigError, match="only root"):
            await spawn(["true"], sandbox=Bubblewrap(user="12345:12346"))
        return
    out, private = open_folder / "out", open_folder / "private"
    out.mkdir()
    os.chown(out, 12345, 12346)
    private.write_text("s3cret")
    private.chmod(0o600)
    script = "id -u; id -g; id -G; id -un; cat private; touch out/made"
    options = {"readonly": [open_folder], "writable": [out], "workdir": open_folder}
    async with Bubblewrap(user="12345:12346", resident=resident, **options) as sandbox:
        for _ in range(2):
            done = await spawn(["sh", "-c", script], sandbox=sandbox)
            assert done.stdout == b"12345\n12346\n12346\nuser\n", done
            assert b"Permission denied" in done.stderr
        done = await spawn(["sh", "-c", "setsid sleep 999 & sleep 999"], sandbox=sandbox, timeout=1)
        assert done.cleanup is Cleanup.CONFIRMED
    status = (out / "made").stat()
    assert (status.st_uid, status.st_gid) == (12345, 12346)
    async with anyspawn.open_process(["cat"], sandbox=Bubblewrap(user="nobody")) as process:
        await process.stdin.send(b"in")
        assert await process.stdout.receive() == b"in"


@pytest.mark.parametrize(
    ("user", "words"),
    [("no-such-user", "no user"), ("0:no-such-group", "no group")],
)
async def test_a_user_that_there_is_not(user, words):
    """An unknown user, of the sandbox or of the command, has its own kind of error."""
    for options in ({"sandbox": Bubblewrap(user=user)}, {"sandbox": Bubblewrap(), "user": user}):
        done = await spawn(["true"], **options)
        assert isinstance(done.error, NotStartedError), done
        assert done.error.kind == "user"
        assert words in str(done.error)


@pytest.mark.parametrize(("user", "words"), [("", "empty"), ("-x", "'-'")])
def test_a_user_that_is_no_name(user, words):
    with pytest.raises(ConfigError, match=f"user.*{words}"):
        Bubblewrap(user=user)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("resident", [0, 1])
async def test_a_user_of_a_command(resident):
    """A command's user replaces the sandbox's for that command only. Sandboxes that were started
    ahead are not shared between users.
    """
    async with Bubblewrap(user="12345:12346", resident=resident) as sandbox:
        for _ in range(2):
            for user, ids in ((None, "12345 12346"), ("1:2", "1 2"), ("nobody", "65534 65534")):
                done = await spawn(
                    ["sh", "-c", "echo $(id -u) $(id -g)"], sandbox=sandbox, user=user
                )
                assert done.text == f"{ids}\n", done
        done = await spawn(["sleep", "999"], sandbox=sandbox, user="1:2", timeout=1)
        assert done.cleanup is Cleanup.CONFIRMED


@pytest.mark.parametrize("resident", [0, 1], ids=["one for each", "kept"])
async def test_a_file_that_only_the_host_has_is_named(tmp_path, resident, monkeypatch):
    """The error suggests a bind if the program or its argument exists on the host only. Other
    errors do not.
    """
    program, script = tmp_path / "program", tmp_path / "x.py"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    script.write_text("")
    monkeypatch.chdir(tmp_path)
    async with Bubblewrap(resident=resident) as sandbox:
        for argv, path in (
            (["python3", str(script)], script),
            (["python3", "x.py"], script),
            ([str(program)], program),
        ):
            error = (await spawn(argv, sandbox=sandbox)).error
            assert f"{path} is not visible in the sandbox: add readonly=['{path}']" in str(error)
        for argv in (["python3", "/no/such.py"], ["sh", "-c", "exit 3", str(script)], ["ls", "/x"]):
            assert "not visible" not in str((await spawn(argv, sandbox=sandbox)).error)
    async with Bubblewrap(resident=resident, readonly=[tmp_path]) as sandbox:
        assert (await spawn(["python3", str(script)], sandbox=sandbox)).ok
        done = await spawn(["sh", "-c", f"echo {script} >&2; exit 3", script], sandbox=sandbox)
        assert "not visible" not in str(done.error)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    "within",
    [
        pytest.param(["--pid", "--fork", "--mount-proc"], id="of another pid namespace"),
        pytest.param(
            ["--mount", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"], id="blind"
        ),
    ],
)
def test_another_host_does_not_take_this_one_for_dead(within):
    """A host that cannot see this process must not remove this process's temporary folder when it
    tidies up.
    """
    folder = etc_folder(os.getuid(), os.getgid())
    before = sorted(os.listdir(folder))
    tidy = "from anyspawn.sandboxes._etc import etc_folder; print(etc_folder(4321, 4321))"
    argv = ["unshare", *within, sys.executable, "-c", tidy]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True)
    assert sorted(os.listdir(folder)) == before
    shutil.rmtree(done.stdout.strip(), ignore_errors=True)


def test_what_the_dead_left_is_removed():
    """The next process that makes such a folder removes those of dead processes."""
    make = (
        "from anyspawn.sandboxes._etc import etc_folder; print(etc_folder(4321, 4321), flush=True)"
    )
    kill = make + "; import os; os.kill(os.getpid(), 9)"
    left = subprocess.run(
        [sys.executable, "-c", kill], stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    assert os.path.isdir(left)
    subprocess.run([sys.executable, "-c", make], stdout=subprocess.PIPE, check=True)
    assert not os.path.exists(left)
