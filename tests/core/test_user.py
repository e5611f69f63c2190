"""A command's ``user``: on this host it works if this process runs as root; sandboxes that cannot
choose a user refuse it.
"""

from __future__ import annotations

import os

import pytest

import anyspawn
from anyspawn import (
    ArgvSandbox,
    Cleanup,
    Command,
    ConfigError,
    Direct,
    KubectlExec,
    Launch,
    NotStartedError,
    SpawnTimeoutError,
    spawn,
)

pytestmark = pytest.mark.anyio
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@as_root
async def test_its_rights_are_that_users(tmp_path):
    """The program has the rights of that user and the given group only; its variables and folder
    are unchanged.
    """
    private = tmp_path / "private"
    private.write_text("s3cret")
    private.chmod(0o600)
    script = f"id -u; id -g; id -G; cat {private} || echo no; echo $HOME"
    done = await spawn(["sh", "-c", script], user="12345:12346")
    assert done.text == f"12345\n12346\n12346\nno\n{os.environ['HOME']}\n"
    assert (await spawn(["id", "-un"], user="nobody", check=True)).text == "nobody\n"
    assert (await spawn(["id", "-u"], user="0", check=True)).text == "0\n"
    async with anyspawn.open_process(["id", "-u"], user="12345") as process:
        assert await process.stdout.receive() == b"12345\n"


@as_root
async def test_its_work_is_killed():
    """The program and everything that it started are killed, and the clean-up is confirmed."""
    done = await spawn(["sh", "-c", "setsid sleep 999 & sleep 999"], user="12345", timeout=1)
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.CONFIRMED


@as_root
@pytest.mark.parametrize("user", ["no-such-user", "0:no-such-group"])
async def test_one_that_there_is_not(user):
    """The error has its own kind, and its message names the unknown user or group."""
    done = await spawn(["true"], user=user)
    assert isinstance(done.error, NotStartedError), done
    assert done.error.kind == "user"
    assert user.rpartition(":")[2] in str(done.error)


@as_root
async def test_a_program_that_it_may_not_execute(tmp_path):
    """The error says that the program is not executable for that user, although root could execute
    it.
    """
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    tmp_path.chmod(0o755)
    done = await spawn([program], user="12345")
    assert isinstance(done.error, NotStartedError), done
    assert done.error.kind == "not_executable"
    assert "user 12345" in str(done.error)


UNPRIVILEGED = """
import anyio, anyspawn
async def main():
    own = await anyspawn.spawn(["id", "-u"], user="65534:65534")
    try:
        await anyspawn.spawn(["true"], user="12345")
    except anyspawn.ConfigError as exc:
        print(own.text, exc)
anyio.run(main)
"""


@as_root
def test_where_this_process_is_not_roots(unprivileged):
    """A process that is not root may name its own user; another user is refused, and the message
    names the mode.
    """
    own, _, words = unprivileged.run(UNPRIVILEGED).stdout.partition("\n")
    assert own == "65534"
    assert "only root" in words
    assert "direct" in words


class Nice(ArgvSandbox):
    """A sandbox that does not handle users."""

    def launch(self, command: Command) -> Launch:
        return Launch(argv=("nice", *command.argv))


async def test_a_sandbox_that_cannot_choose():
    """The sandbox refuses a user by its name before anything starts, for calls and for live
    processes.
    """
    for sandbox in (Nice(name="nice"), KubectlExec("pod", name="kubectl_exec")):
        with pytest.raises(ConfigError, match=f"user: {sandbox.name}"):
            await spawn(["true"], sandbox=sandbox, user="nobody")
        with pytest.raises(ConfigError, match=f"user: {sandbox.name}"):
            async with anyspawn.open_process(["true"], sandbox=sandbox, user="nobody"):
                pass


@as_root
async def test_in_a_box_of_a_folder(tmp_path):
    """If the folder lets the user in, the files that the user makes there are the user's."""
    tmp_path.chmod(0o777)
    async with anyspawn.open_box(Direct(), workdir=tmp_path) as box:
        await box.spawn(["touch", "made"], user="12345:12346", check=True)
    status = (tmp_path / "made").stat()
    assert (status.st_uid, status.st_gid) == (12345, 12346)
