"""Sandboxes written as docs/how-to/write-a-sandbox.md shows, and the kit over them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from attrs import frozen

import anyspawn
from anyspawn import ArgvSandbox, Command, Completed, Launch
from anyspawn.testing import SandboxConformance
from machine import kill_all

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-sandbox.md"


def of_the_page(sandbox):
    """Return the names defined by the page's code blocks about a sandbox."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        if sandbox in block:
            exec(compile(block, str(PAGE), "exec"), names)
    return names


class TestOfThePage(of_the_page("Nice")["TestNice"]):
    """The sandbox of the page passes the kit."""


class TestBoxOfThePage(of_the_page("Labelled")["TestLabelledBox"]):
    """The box of the page passes the kit, and keeps the variable that it adds."""

    async def test_its_own(self, sandbox):
        async with self.box(sandbox) as box:
            assert await self.says(box, 'echo "$LABEL"') == "blue\n"


class Service:
    """A sandbox without a local process and without live processes."""

    name = "service"

    async def spawn(self, command: Command) -> Completed:
        done = await anyspawn.spawn(command)
        return attrs.evolve(done, runner_argv=())


class TestService(SandboxConformance):
    contains = False
    live = False

    @pytest.fixture
    def sandbox(self):
        return Service()


LIES = {
    "test_stdin_and_stdout_are_whole": {"stdout": b""},
    "test_a_timeout": {"error": None, "returncode": 0},
    "test_statuses": {"returncode": 1},
    "test_a_signal": {"returncode": 137},
    "test_what_a_program_leaves_behind": {"cleanup": anyspawn.Cleanup.UNCONFIRMED},
    "test_a_program_that_is_missing": {"error": anyspawn.ExitError("x"), "returncode": 127},
    "test_no_secret_stands_in_an_argv": {"runner_argv": ("the variables' values",)},
}


@pytest.mark.anyio
@pytest.mark.parametrize("check", LIES)
async def test_a_sandbox_that_lies(check):
    """Each lie fails the check named beside it."""

    class Liar(Service):
        async def spawn(self, command: Command) -> Completed:
            lie = dict(LIES[check])
            if "runner_argv" in lie:
                lie["runner_argv"] = tuple(dict(command.env.look_up({})).values())
            return attrs.evolve(await anyspawn.spawn(command), **lie)

    kit = TestService()
    kit.mark = "1234567891"
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await getattr(kit, check)(Liar())


@pytest.mark.anyio
async def test_a_sandbox_that_leaves_processes():
    """The kit looks for itself whether a clean-up that is reported as confirmed really is."""
    kit = SandboxConformance()
    kit.mark = "1234567892"
    with pytest.raises(AssertionError, match="CONFIRMED"):
        await kit.test_a_timeout(Detached())
    kill_all(kit.survivors(kit.mark))


@frozen(kw_only=True)
class Detached(ArgvSandbox):
    """Loses track of the program, as a client of a daemon can."""

    def launch(self, command: Command) -> Launch:
        script = 'setsid sh -c \'"$@"\' sh "$@" & wait'
        return Launch(argv=("sh", "-c", script, "sh", *command.argv), env=command.env, mark=False)


WITHOUT = """
import sys
sys.modules["pytest"] = None
import anyspawn
import anyspawn.testing
"""


def test_without_pytest():
    """The library works without pytest; the kit says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == (
        "ImportError: anyspawn.testing needs pytest; install it with: pip install pytest"
    )
