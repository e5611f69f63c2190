"""Files in a writable folder that the host would run later do not change, and new ones are
reported.
"""

from __future__ import annotations

import logging
import os
import subprocess

import anyio
import attrs
import pytest

import anyspawn
from anyspawn import Bubblewrap, Cleanup, ExitError, PlantedError, SpawnTimeoutError, spawn
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=b")


def git(folder, *argv):
    return subprocess.run([*GIT, "-C", folder, *argv], capture_output=True, text=True, check=True)


@pytest.fixture
def repository(tmp_path):
    """A repository with a commit, a nested one, a bare one, and one whose git folder is elsewhere
    in it.
    """
    top = tmp_path / "top"
    for place, *options in (
        ("top",),
        ("top/a/b/nested",),
        ("top/bare.git", "--bare"),
        ("top/linked", "--separate-git-dir", str(top / "a/real")),
    ):
        git(tmp_path, "init", "-q", *options, place)
    git(top, "commit", "-q", "--allow-empty", "-m", "first")
    return top


def box(folder, *named):
    return Bubblewrap(
        writable=[{folder: "/w"}, *({folder / n: f"/w/{n}"} for n in named)], workdir="/w"
    )


EVIL = "mkdir -p $1/hooks; printf '#!/bin/sh\\necho EVIL >&2\\n' >$1/hooks/pre-commit; chmod +x $1/hooks/pre-commit"
COPY = "cp -r .git evil; rm -r evil/hooks"
WRITE = "for f; do { echo evil >$f; } 2>/dev/null && echo $f; done; true"


async def test_repositories_cannot_be_changed_where_the_host_would_run_it(repository):
    """Hooks and settings are read-only at the top, in sub-folders, in bare repositories and where
    `.git` is a file. git itself works.
    """
    (repository / "a/.vscode").mkdir()
    (repository / "a/.bashrc").write_text("x")
    names = [
        f"{place}/{name}"
        for place in (".git", "a/b/nested/.git", "bare.git", "a/real")
        for name in ("config", "hooks/post-commit", "hooks/pre-commit")
    ]
    names += ["linked/.git", "a/.vscode/tasks.json", "a/.bashrc", "a/file"]
    done = await spawn(["sh", "-c", WRITE, "sh", *names], sandbox=box(repository), check=True)
    assert done.text == "a/file\n"
    script = "git add a/file && git commit -qm x && git checkout -qb other && git status --short"
    done = await spawn(["sh", "-c", script], sandbox=box(repository), env=who())
    assert done.ok, done
    assert git(repository, "log", "--format=%s", "other").stdout == "x\nfirst\n"


def who():
    return {
        f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }


async def test_git_cannot_be_moved_away(repository):
    """.git cannot be renamed to put another one in its place, and neither can the folders around
    secrets.
    """
    for name in (".github/workflows/ci.yml", ".config/gh/hosts.yml"):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text("x")
    for name in (".git", ".github", ".config"):
        done = await spawn(["mv", name, "x"], sandbox=box(repository))
        assert "Device or resource busy" in done.stderr_text
        assert (repository / name).exists()


async def test_what_is_read_only_by_name_stays_so(repository):
    """A folder that is read-only by name stays so, even if something inside is protected too."""
    (repository / ".local/share/keyrings").mkdir(parents=True)
    for place in ("a/b", ".local"):
        sandbox = attrs.evolve(box(repository), readonly=[{repository / place: f"/w/{place}"}])
        names = ["a/b/nested/.git/x", "a/b/x"] if place == "a/b" else [".local/share/x"]
        done = await spawn(["sh", "-c", WRITE, "sh", *names], sandbox=sandbox, check=True)
        assert done.text == ""


async def test_a_folder_of_hooks_is_made_where_there_is_none(repository):
    """git creates the folder of hooks. If it is missing, anyspawn must create it, so that it can be
    read-only.
    """
    subprocess.run(["rm", "-r", repository / ".git/hooks"], check=True)
    done = await spawn(["sh", "-c", EVIL, "sh", ".git"], sandbox=box(repository))
    assert "Read-only" in done.stderr_text
    assert os.listdir(repository / ".git/hooks") == []


PLANTS = {
    "a start-up file": ("echo evil >.bashrc", [".bashrc"]),
    "a task": ("mkdir -p x/.vscode; echo {} >x/.vscode/tasks.json", ["x/.vscode"]),
    "a link": ("mkdir evil; ln -s evil .claude", [".claude"]),
    "a workflow": ("mkdir -p .github/workflows; echo >.github/workflows/x.yml", [".github/workflows"]),
    "a hook in a new repository": (f"git init -q x; {EVIL}", ["x/.git/hooks"]),
    "a setting in a new repository": (
        "git init -q x; git -C x config core.fsmonitor ./evil",
        ["x/.git/config"],
    ),
    "a bare repository": ("git init -q --bare y; git -C y config alias.x '!evil'", ["y/config"]),
    "a common folder": (
        f"{COPY}; rm evil/HEAD; set -- evil; {EVIL}; echo ../evil >.git/commondir",
        [".git/commondir", "evil/hooks"],
    ),
    "a git file": (
        f"{COPY}; set -- evil; {EVIL}; mkdir x; echo gitdir: ../evil >x/.git",
        ["evil/hooks"],
    ),
    "a nested repository's place": (
        f"mv a old; git init -q a/b/nested; set -- a/b/nested/.git; {EVIL}",
        ["a/b/nested/.git/hooks"],
    ),
    "settings of git that include others": (
        "git init -q x; printf '[include] path = evil' >>x/.git/config",
        ["x/.git/config"],
    ),
    "a folder that cannot be listed": ("mkdir x; echo >x/.bashrc; chmod 311 x", ["x"]),
}  # fmt: skip


@pytest.mark.parametrize("what", [name for name in PLANTS if "listed" not in name])
async def test_what_is_new_is_told(repository, what):
    """New files are reported whatever the program's exit status is."""
    script, paths = PLANTS[what]
    done = await spawn(
        ["sh", "-c", f"{script}\nexit 3", "sh", "x/.git"], sandbox=box(repository), env=who()
    )
    assert isinstance(done.error, PlantedError), done
    assert done.returncode == 3
    assert {str(repository / path) for path in paths} <= set(done.error.paths)
    assert "'sh' exited with status 3; new in a writable folder" in str(done.error)
    assert all((repository / path).exists() for path in paths)


async def test_more_folders_than_are_looked_at(tmp_path):
    """A program that makes too many folders is reported. If so many existed before, the outer ones
    are still checked.
    """
    script = "import os\nfor n in range(5001): os.makedirs(f'x/{n}', exist_ok=True)"
    argv = ["python3", "-c", f"{script}\nopen('.bashrc', 'w')"]
    for paths in ((str(tmp_path), f"{tmp_path}/.bashrc"), (f"{tmp_path}/.bashrc",)):
        done = await spawn(argv, sandbox=box(tmp_path), timeout=100)
        assert isinstance(done.error, PlantedError), done.stderr
        assert done.error.paths == paths
        (tmp_path / ".bashrc").unlink()


@pytest.mark.parametrize("place", ["common", "file", "nested"])
def test_the_host_would_run_it(repository, place):
    """The attacks above are real: without the sandbox, git on the host runs the planted hook."""
    script, where = {
        "common": (PLANTS["a common folder"][0], "."),
        "file": (PLANTS["a git file"][0], "x"),
        "nested": (PLANTS["a nested repository's place"][0], "a/b/nested"),
    }[place]
    subprocess.run(["sh", "-c", script, "sh"], cwd=repository, check=True)
    assert "EVIL" in git(repository / where, "commit", "--allow-empty", "-m", "x").stderr


async def test_what_git_makes_is_no_plant(repository):
    """A clone, a new repository or a branch that follows another contains nothing that the host
    would run.
    """
    script = (
        "git clone -q . x && git init -q y && git -C x checkout -qb z origin/b && git -C x tag t"
    )
    done = await spawn(["sh", "-c", script], sandbox=box(repository))
    assert done.ok, done


@pytest.mark.parametrize(
    "script",
    [
        "mkdir .git; mkfifo .git/config .git/commondir",
        "printf 'gitdir: a\\0b' >.git",
        "ln -s /dev/zero .git",
        "ln -s .git .git",
        "echo gitdir: .git >.git",
        "echo gitdir: $(head -c 9000 /dev/zero | tr '\\0' x) >.git",
        "mkdir .git; echo . >.git/commondir; printf 'hookspath=\\0' >.git/config",
        "mkdir -p x/HEAD x/objects x/refs x/config x/commondir; ln -s x x/hooks",
        "printf :// >.npmrc; head -c 1M /dev/zero | tr '\\0' : >>.npmrc",
        "mkdir .git; yes 'hookspath=  ' | tr '\\n' ' ' | head -c 1M >.git/config",
        "touch $(printf 'a\\377') .git; mkdir $(printf 'b\\377'); touch $(printf 'b\\377')/.bashrc",
    ],
)
@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
async def test_what_is_no_repository(tmp_path, script):
    """Broken and hostile repositories do not break the check: the call has its outcome, and so has
    the next one.
    """
    for _ in range(2):
        done = await spawn(["sh", "-c", f"{script}\nexit 3"], sandbox=box(tmp_path))
        assert done.returncode == 3, done
        assert done.cleanup is Cleanup.NOT_NEEDED


async def test_what_root_cannot_get_into_does_not_disturb(repository):
    """The program cannot enter another user's folder either, so it does not need to be checked."""
    if os.getuid() != 0:
        pytest.skip("needs another user")
    os.chmod(repository / "a", 0o700)
    os.chown(repository / "a", 12345, 12345)
    done = await spawn(["ls", "a"], sandbox=box(repository))
    assert "Permission denied" in done.stderr_text
    assert done.returncode == 2


async def test_what_is_named_may_be_made(repository):
    """Paths that are named as writable can be created or changed."""
    (repository / ".claude").mkdir()
    script = "echo x >.bashrc; echo x >.claude/x; git config alias.x y"
    allowed = box(repository, ".bashrc", ".claude", ".git")
    done = await spawn(["sh", "-c", script], sandbox=allowed)
    assert done.ok, done
    assert (repository / ".bashrc").read_text() == (repository / ".claude/x").read_text() == "x\n"


async def test_it_is_told_however_the_call_ends(repository, caplog):
    """After a timeout the error names the new files; after a cancellation the log does."""
    script = "echo x >.bashrc; echo done; sleep 60"
    done = await spawn(["sh", "-c", script], sandbox=box(repository), timeout=2)
    assert isinstance(done.error, SpawnTimeoutError)
    assert f"run by the host later: {repository}/.bashrc" in str(done.error)
    assert done.cleanup is Cleanup.CONFIRMED
    (repository / ".bashrc").unlink()
    caplog.clear()
    with anyio.CancelScope() as scope:
        await spawn(
            ["sh", "-c", script],
            sandbox=box(repository),
            timeout=60,
            on_output=lambda *_: scope.cancel(),
        )
    assert scope.cancelled_caught
    (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert f"{repository}/.bashrc" in record.getMessage()


@pytest.mark.parametrize("resident", [0, 1])
async def test_each_call_tells_of_its_own(repository, resident):
    """A file that existed before the call is not new in it, and is read-only."""
    async with Bubblewrap(writable=[repository], workdir=repository, resident=resident) as sandbox:
        assert (await spawn(["true"], sandbox=sandbox)).ok
        done = await spawn(["touch", ".bashrc"], sandbox=sandbox)
        assert isinstance(done.error, PlantedError)
        assert (await spawn(["true"], sandbox=sandbox)).ok
        done = await spawn(["touch", ".bashrc"], sandbox=sandbox)
        assert type(done.error) is ExitError


async def test_a_live_program_is_told_of(repository, caplog):
    """The outcome and the log name the new files."""
    argv = ["sh", "-c", "echo x >.bashrc"]
    async with anyspawn.open_process(argv, sandbox=box(repository)) as process:
        await process.wait()
    assert isinstance(process.completed.error, PlantedError)
    assert any(f"{repository}/.bashrc" in record.getMessage() for record in caplog.records)


def test_an_ordinary_user_is_told_also_of_what_it_cannot_list(unprivileged):
    """An ordinary user learns of new files, and of a folder that the program made unreadable."""
    run = (
        "import anyio, os, sys, tempfile\n"
        "from anyspawn import Bubblewrap, spawn\n"
        "folder = tempfile.mkdtemp()\n"
        "os.mkdir(folder + '/.git')\n"
        "open(folder + '/.profile', 'w').close()\n"
        "box = Bubblewrap(writable=[folder], workdir=folder)\n"
        "done = anyio.run(lambda: spawn(['sh', '-c', sys.argv[1]], sandbox=box, timeout=55))\n"
        "paths = getattr(done.error, 'paths', done)\n"
        "print(*(os.path.relpath(path, folder) for path in paths), done.stderr.count(b'nly'))\n"
        "os.chmod(folder + '/x', 0o700)\n"
    )
    script = f"{PLANTS['a folder that cannot be listed'][0]}; echo x >.zshrc; echo x >.profile; echo x >.git/hooks/x"
    told = unprivileged.run(run, script).stdout.split()
    assert sorted(told) == [".zshrc", "2", "x"]
