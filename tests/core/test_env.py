"""Variables reach the program unchanged, and nothing else gets them."""

from __future__ import annotations

import json
import os
import sys

import pytest

from anyspawn import Direct, spawn

pytestmark = pytest.mark.anyio
SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
VALUES = {
    "LINES": "a\nb\n",
    "EQUALS": "=x=y=",
    "UTF": "é☃",
    "EMPTY": "",
    "BYTES": "\udcff",
    "SPACES": "  ",
}


async def test_exact_values_over_the_hosts(monkeypatch):
    """env is merged over the host's variables. Newlines, equals signs, non-ASCII text and empty
    values arrive unchanged.
    """
    monkeypatch.setenv("HOST", "host")
    monkeypatch.setenv("EMPTY", "not empty")
    shown = json.loads((await spawn(SHOW, env=VALUES, check=True)).stdout)
    assert shown.items() >= {**VALUES, "HOST": "host"}.items()
    assert shown.keys() - os.environ.keys() == (VALUES.keys() | {"ANYSPAWN_ID"}) - os.environ.keys()


async def test_only_env():
    """With inherit_env=False the program gets only the variables of env."""
    done = await spawn(
        ["/usr/bin/env", "-0"],
        sandbox=Direct(inherit_env=False),
        env={"A": "x\ny", "B": ""},
        check=True,
    )
    assert sorted(done.stdout.split(b"\0")) == [b"", b"A=x\ny", b"B="]


async def test_names_alone_are_looked_up_at_call_time(monkeypatch):
    """A bare name takes the host's value when the call is made; a name that is unset is
    left out.
    """
    sandbox = Direct(inherit_env=False)
    monkeypatch.setenv("LATER", "1")
    assert (
        await spawn(["/usr/bin/env"], sandbox=sandbox, env=["LATER", "UNSET_HERE"], check=True)
    ).stdout == b"LATER=1\n"
    monkeypatch.setenv("LATER", "2")
    assert (
        await spawn(["/usr/bin/env"], sandbox=sandbox, env=["LATER"], check=True)
    ).stdout == b"LATER=2\n"


async def test_the_programs_path_is_the_programs():
    """The program is looked up on the PATH of env, as execvpe does."""
    done = await spawn(["sh", "-c", "echo $PATH"], env={"PATH": "/usr/bin:/bin"}, check=True)
    assert done.stdout == b"/usr/bin:/bin\n"


async def test_nested_calls_carry_both_marks():
    """A program that uses anyspawn itself appends its mark to the outer one, so that the outer call
    finds the processes of the inner call.
    """
    inner = "import anyio, anyspawn; print(anyio.run(lambda: anyspawn.spawn(['sh', '-c', 'echo $ANYSPAWN_ID'])).stdout)"
    done = await spawn([sys.executable, "-c", inner], timeout=60, check=True)
    assert done.stdout.count(b":") == os.environ.get("ANYSPAWN_ID", "").count(":") + 1
