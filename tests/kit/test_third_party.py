"""Sandboxes that are written from docs/how-to/write-a-sandbox.md, and the kit over them."""

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
    """Return what the page's blocks on a sandbox, and the checks of it, define."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        if sandbox in block:
            exec(compile(block, str(PAGE), "exec"), names)
    return names


class TestOfThePage(of_the_page("Nice")["TestNice"]):
    """As it stands there."""


class TestBoxOfThePage(of_the_page("Labelled")["TestLabelledBox"]):
    """As it stands there; what it adds is there in a box, too."""

    async def test_its_own(self, sandbox):
        async with self.box(sandbox) as box:
            assert await self.says(box, 'echo "$LABEL"') == "blue\n"


class Service:
    """No process, as far as anyspawn knows; and no live ones."""

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
    """Is found out."""

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
    """Is found out: what is said to be confirmed is looked at."""
    kit = SandboxConformance()
    kit.mark = "1234567892"
    with pytest.raises(AssertionError, match="CONFIRMED"):
        await kit.test_a_timeout(Detached())
    kill_all(kit.survivors(kit.mark))


@frozen(kw_only=True)
class Detached(ArgvSandbox):
    """Loses sight of the work, as a client of some daemon does."""

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
    """The library works; the kit says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == (
        "ImportError: anyspawn.testing needs pytest; install it with: pip install pytest"
    )
