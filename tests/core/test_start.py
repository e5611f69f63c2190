"""If a program cannot start, the error says what is missing, and nothing is left behind."""

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
    """The program is missing on PATH, at an absolute path, or at a relative one."""
    await refused(["no-such-program"], "'no-such-program'", "PATH")
    await refused(["/no/such/program"], "'/no/such/program'", "does not exist")
    await refused(["./relative"], "./relative", cwd=str(tmp_path))


async def test_missing_working_directory(tmp_path):
    """The error names the working directory, not the program."""
    await refused(
        ["cat"],
        "working directory",
        str(tmp_path / "gone"),
        "does not exist",
        cwd=str(tmp_path / "gone"),
    )


async def test_a_file_as_working_directory(tmp_path):
    """A working directory that is a file has its own message."""
    (tmp_path / "file").touch()
    await refused(["cat"], "working directory", "not a directory", cwd=str(tmp_path / "file"))


async def test_missing_interpreter(script):
    """The program exists, but the interpreter in its first line does not; the error names both."""
    program = script("#!/no/such/interpreter -x\n")
    await refused([program], program, "'/no/such/interpreter'", "interpreter")


async def test_not_executable(script, tmp_path):
    """A file without the executable bit and a directory are refused, each with its reason."""
    await refused([script("#!/bin/sh\n", 0o644)], "not executable", "chmod +x")
    await refused([str(tmp_path)], "directory")


async def test_no_program_format(script):
    """An executable file that is neither binary nor script is refused, and never given
    to a shell.
    """
    await refused([script("exit 7\n")], "format", "#!/bin/sh")


async def test_too_long():
    """Arguments are longer than the system allows: the error suggests stdin."""
    await refused(["true", "x" * 3_000_000], "too long", "stdin")
    await refused(["true"], "too long", env={"BIG": "x" * 3_000_000})


async def test_undecodable_names_are_names(tmp_path):
    """Bytes that are not UTF-8, decoded as Python decodes file names, reach the program
    unchanged.
    """
    name = os.fsdecode(b"\xff\xfe")
    (tmp_path / name).write_text("x")
    done = await spawn(["cat", str(tmp_path / name)], check=True)
    assert done.stdout == b"x"


async def test_a_shell_is_never_started(tmp_path):
    """Shell syntax in an argument is passed on as plain text."""
    done = await spawn(["printf", "%s", "$(id); `id` && * > x"], cwd=str(tmp_path), check=True)
    assert done.stdout == b"$(id); `id` && * > x"
    assert not list(tmp_path.iterdir())
