"""Programs that cannot start: the error says what is missing, and nothing is left behind."""

from __future__ import annotations

import os

import pytest

from anyspawn import Cleanup, NotStartedError, spawn

pytestmark = pytest.mark.anyio


@pytest.fixture
def script(tmp_path):
    def write(text, mode=0o755):
        file = tmp_path / "program"
        file.write_text(text)
        file.chmod(mode)
        return str(file)

    return write


async def refused(argv, *words, **options):
    done = await spawn(argv, **options)
    assert isinstance(done.error, NotStartedError), done
    assert (done.returncode, done.stdout, done.cleanup) == (None, b"", Cleanup.NOT_NEEDED)
    assert done.error.completed is done
    for word in words:
        assert word in done.error.reason
    with pytest.raises(NotStartedError):
        done.check()


async def test_missing_program(tmp_path):
    """By name on PATH, or by path."""
    await refused(["no-such-program"], "'no-such-program'", "PATH")
    await refused(["/no/such/program"], "'/no/such/program'", "does not exist")
    await refused(["./relative"], "./relative", cwd=str(tmp_path))


async def test_missing_working_directory(tmp_path):
    """It is named, and not mistaken for the program."""
    await refused(
        ["cat"],
        "working directory",
        str(tmp_path / "gone"),
        "does not exist",
        cwd=str(tmp_path / "gone"),
    )


async def test_a_file_as_working_directory(tmp_path):
    """A file is told apart from something missing."""
    (tmp_path / "file").touch()
    await refused(["cat"], "working directory", "not a directory", cwd=str(tmp_path / "file"))


async def test_missing_interpreter(script):
    """The program is there; what its first line asks for is not."""
    program = script("#!/no/such/interpreter -x\n")
    await refused([program], program, "'/no/such/interpreter'", "interpreter")


async def test_not_executable(script, tmp_path):
    """A file without the executable bit, and a directory."""
    await refused([script("#!/bin/sh\n", 0o644)], "not executable", "chmod +x")
    await refused([str(tmp_path)], "directory")


async def test_no_program_format(script):
    """A file with the executable bit that is neither binary nor script is refused, and never given
    to a shell.
    """
    await refused([script("exit 7\n")], "format", "#!/bin/sh")


async def test_too_long():
    """Arguments beyond what the system takes: the error says to use stdin."""
    await refused(["true", "x" * 3_000_000], "too long", "stdin")
    await refused(["true"], "too long", env={"BIG": "x" * 3_000_000})


async def test_undecodable_names_are_names(tmp_path):
    """Bytes that are no UTF-8, decoded as Python decodes file names, reach the program as they
    were.
    """
    name = os.fsdecode(b"\xff\xfe")
    (tmp_path / name).write_text("x")
    done = await spawn(["cat", str(tmp_path / name)], check=True)
    assert done.stdout == b"x"


async def test_a_shell_is_never_started(tmp_path):
    """What a shell would take for commands is an argument like any other."""
    done = await spawn(["printf", "%s", "$(id); `id` && * > x"], cwd=str(tmp_path), check=True)
    assert done.stdout == b"$(id); `id` && * > x"
    assert not list(tmp_path.iterdir())
