"""Sessions of the Agents SDK in boxes meet the expectations of the SDK's own tests."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import uuid
from pathlib import Path

import anyio
import pytest
from agents import RunConfig, Runner
from agents.sandbox import (
    ExecTimeoutError,
    Manifest,
    SandboxAgent,
    SandboxPathGrant,
    SandboxRunConfig,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.entries import Dir, File, LocalDir
from agents.sandbox.errors import InvalidManifestPathError, PtySessionNotFoundError
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call

from anyspawn import Bubblewrap, ConfigError, DockerRun
from anyspawn.contrib.openai_agents_sandbox import BoxClient
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio
SANDBOXES = [Bubblewrap(default_timeout=60), DockerRun("python:3-slim", default_timeout=60)]
CLIENT = BoxClient(SANDBOXES[0])


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def session():
    async with await CLIENT.create() as session:
        yield session


def marked():
    return f"300.{str(uuid.uuid4().int)[:12]}"


def running(mark):
    return [pid for pid, argv in command_lines().items() if mark.encode() in argv]


async def write(session, path, content, **who):
    await session.write(Path(path), io.BytesIO(content), **who)


async def read(session, path):
    with await session.read(Path(path)) as stream:
        return stream.read()


@pytest.mark.parametrize("sandbox", SANDBOXES, ids=lambda sandbox: sandbox.name)
async def test_a_workspace_and_its_snapshot(sandbox, tmp_path, monkeypatch):
    """The manifest is laid out. Later changes by files, commands, patches and archives are in the
    snapshot, and in a session that another client resumes from the state.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src" / "below").mkdir(parents=True)
    (tmp_path / "src" / "below" / "one.txt").write_text("local")
    entries = {
        "inline.txt": File(content=b"first\n"),
        "gone.txt": File(content=b"gone"),
        "tree": Dir(children={"kept": File(content=b"k"), "new": File(content=b"n", ephemeral=True)}),
        "copy": LocalDir(src=Path("src")),
    }  # fmt: skip
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("in/tar.txt")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"at"))
    archive.seek(0)
    client = BoxClient(sandbox)
    spec = LocalSnapshotSpec(base_path=tmp_path / "snapshots")
    made = await client.create(
        snapshot=spec, manifest=Manifest(entries=entries, environment={"value": {"WHO": "me"}})
    )
    async with made as session:
        assert await read(session, "copy/below/one.txt") == b"local"
        assert (await session.exec('printf "$WHO $PWD"')).stdout == b"me /workspace"
        await session.apply_patch(
            [
                {"type": "update_file", "path": "inline.txt", "diff": "@@\n-first\n+second\n"},
                {"type": "create_file", "path": "made/by.txt", "diff": "+patch"},
                {"type": "delete_file", "path": "gone.txt"},
            ]
        )
        await session.extract("bundle.tar", archive)
        await write(session, "tree/new", b"changed")
        script = (
            "echo '#!/bin/sh' >run; chmod +x run; ln run again; ln -s /bin/sh shell; mkfifo pipe"
        )
        assert (await session.exec(script)).ok()
        names = {entry.path for entry in await session.ls(".")}
        assert {"/workspace/run", "/workspace/tree"} < names
    payload = json.loads(json.dumps(client.serialize_session_state(made.state), default=str))
    again = BoxClient(sandbox)
    resumed = await again.resume(again.deserialize_session_state(payload))
    async with resumed as session:
        wanted = {"inline.txt": b"second\n", "made/by.txt": b"patch", "copy/below/one.txt": b"local",
                  "in/tar.txt": b"at", "tree/kept": b"k", "tree/new": b"n"}  # fmt: skip
        assert {path: await read(session, path) for path in wanted} == wanted
        with pytest.raises(WorkspaceReadNotFoundError):
            await read(session, "gone.txt")
        done = await session.exec("./run && ./again && readlink shell && ls pipe gone.txt")
        assert (done.stdout, done.exit_code) == (b"/bin/sh\n", 2), done.stderr
        program = await session.pty_exec_start("echo ready; read line; echo got $line", tty=True)
        assert b"ready" in program.output


async def test_paths_that_leave_the_workspace(session):
    """Paths out of the workspace are refused, even through a link; paths that the manifest grants
    are not.
    """
    await session.exec("ln -s /etc out; ln -s ../../etc/passwd up; ln -s inline in; echo x >inline")
    for path in ("../a", "/etc/passwd", "out/passwd", "up"):
        with pytest.raises(InvalidManifestPathError):
            await read(session, path)
        with pytest.raises(InvalidManifestPathError):
            await write(session, path, b"")
    assert await read(session, "in") == b"x\n"


async def test_a_grant_lets_a_path_in():
    """A granted path can be read, and written unless it is read-only. A path of the host cannot be
    granted.
    """
    grants = (SandboxPathGrant(path="/etc", read_only=True), SandboxPathGrant(path="/tmp"))
    async with await CLIENT.create(manifest=Manifest(extra_path_grants=grants)) as session:
        await write(session, "/tmp/new", b"here")
        assert await read(session, "/tmp/new") == b"here"
        assert await read(session, "/etc/passwd")
        with pytest.raises(WorkspaceArchiveWriteError):
            await write(session, "/etc/new", b"")
    grant = SandboxPathGrant(path="/mnt/data", host_path="/srv")
    with pytest.raises(ConfigError, match="use readonly or writable of the sandbox"):
        await CLIENT.create(manifest=Manifest(extra_path_grants=(grant,)))


async def test_how_commands_fail(session):
    """A timeout, a missing program and too much output are three different results, and the session
    continues after each.
    """
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 300", timeout=0.2)
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 300", timeout=0)
    assert (await session.exec("no-such-program", shell=False)).exit_code == 127
    assert (await session.exec("exit 3")).exit_code == 3
    done = await session.exec("yes")
    assert (done.exit_code, done.stdout[:4]) == (137, b"y\ny\n")
    assert b"16777216" in done.stderr
    with pytest.raises(WorkspaceArchiveWriteError, match="directory"):
        await write(session, ".", b"")
    assert await session.running()


async def test_programs_that_stay(session):
    """Programs are addressed by number to read their output and to type, with a terminal or
    without.
    """
    echo = 'IFS= read -r line; printf "got %s\\n" "$line"'
    begun = await session.pty_exec_start(echo, tty=True, yield_time_s=0)
    told = await session.pty_write_stdin(
        session_id=begun.process_id, chars="hello\n", yield_time_s=30
    )
    assert b"got hello" in told.output
    assert (told.process_id, told.exit_code) == (None, 0)
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=begun.process_id, chars="")
    begun = await session.pty_exec_start("echo out; echo err >&2; exec sleep 300", yield_time_s=1)
    assert begun.exit_code is None
    with pytest.raises(RuntimeError, match="stdin is not available"):
        await session.pty_write_stdin(session_id=begun.process_id, chars="x")
    done = await session.pty_exec_start("exec no-such-program 2>&1")
    assert (done.process_id, done.exit_code) == (None, 127)


async def test_ctrl_c(session):
    """Ctrl-C ends the program in the terminal."""
    begun = await session.pty_exec_start("echo up; sleep 300", tty=True, yield_time_s=1)
    told = await session.pty_write_stdin(session_id=begun.process_id, chars="\x03", yield_time_s=30)
    assert told.process_id is None
    assert told.exit_code != 0


async def test_a_session_that_ends_leaves_nothing():
    """Programs and background processes live until the session ends, and not longer."""
    here, left = marked(), marked()
    session = await CLIENT.create()
    async with session:
        await session.exec(f"sleep {left} &")
        await session.pty_exec_start("sleep", here, shell=False, yield_time_s=0)
        assert (await session.exec(f"pgrep -f 'sleep {left}'")).ok()
    assert not eventually(lambda: running(here) + running(left))
    with pytest.raises(RuntimeError, match="start"):
        await session.exec("true")
    assert not await session.running()


async def test_an_agent(tmp_path):
    """The SDK's own tools work in the box, and the run's end closes it."""
    mark = marked()
    calls = [
        function_call("exec_command", {"cmd": f"echo hi >a; pwd; sleep {mark} & "}, call_id="1"),
        function_call("exec_command", {"cmd": "cat a", "workdir": "/workspace"}, call_id="2"),
    ]
    model = ScriptedModel([*([call] for call in calls), [assistant_message("done")]])
    sandbox = SandboxRunConfig(client=CLIENT, snapshot=NoopSnapshotSpec())
    config = RunConfig(tracing_disabled=True, sandbox=sandbox)
    result = await Runner.run(SandboxAgent("a", model=model), "go", run_config=config)
    told = {
        item["call_id"]: item["output"]
        for item in result.to_input_list()
        if item.get("type") == "function_call_output"
    }
    assert "exited with code 0" in told["1"]
    assert "/workspace" in told["1"]
    assert told["2"].endswith("hi\n")
    assert not eventually(lambda: running(mark))


async def test_a_cancelled_run_leaves_nothing():
    """When the cancelled run returns, its command and its box are gone."""
    mark = marked()
    call = function_call("exec_command", {"cmd": f"sleep {mark}"}, call_id="1")
    model = ScriptedModel([[call], [assistant_message("done")]])
    sandbox = SandboxRunConfig(client=CLIENT, snapshot=NoopSnapshotSpec())
    config = RunConfig(tracing_disabled=True, sandbox=sandbox)
    run = asyncio.create_task(Runner.run(SandboxAgent("a", model=model), "go", run_config=config))
    with anyio.fail_after(60):
        while not running(mark):
            await anyio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not eventually(lambda: running(mark))


async def test_a_start_that_fails_leaves_no_box(tmp_path):
    """If the manifest cannot be laid out, the session's box is closed."""
    session = await CLIENT.create(manifest=Manifest(entries={"a": LocalDir(src=Path("missing"))}))
    with pytest.raises(Exception, match="local dir"):
        await session.start()
    assert not await session.running()
