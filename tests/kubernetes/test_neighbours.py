"""Programs that attack the calls beside and after them, in a pod that they share."""

from __future__ import annotations

import logging
import os

import pytest

from anyspawn import Cleanup, KubectlExec, spawn
from replaced import check_replaced_tools

pytestmark = pytest.mark.anyio

HIDE = "ulimit -x 7 2>/dev/null || ulimit -w 7; env -i setsid sleep {} </dev/null >/dev/null 2>&1 &"
"""Leaves a program behind without the limit and the variable by which the supervisor
would find it.
"""


@pytest.mark.parametrize("resident", [0, 1])
async def test_what_hides_in_a_shared_pod_is_told_of(space, own, resident, caplog):
    """The clean-up is unconfirmed, and the log warns that programs can forge outcomes."""
    seconds = f"777.{os.getpid()}"
    async with KubectlExec(
        own, namespace=space.name, resident=resident, default_timeout=60
    ) as sandbox:
        done = await spawn(["sh", "-c", HIDE.format(seconds)], sandbox=sandbox)
        assert (done.error, done.cleanup) == (None, Cleanup.UNCONFIRMED)
        assert [line for line in space.processes(own) if seconds in line]
        assert (await spawn(["true"], sandbox=sandbox)).cleanup is Cleanup.NOT_NEEDED
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("can forge the outcome" in record.getMessage() for record in warned) == 1


STEAL = (
    r"for p in /proc/[0-9]*; do case $(tr '\0' ' ' <$p/cmdline) in "
    "*anyspawn*) [ ${p#/proc/} = $$ ] || kill -STOP ${p#/proc/} ;; esac; done 2>/dev/null"
)
"""Stops every supervisor in the pod, its own included."""


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize("resident", [0, 1])
async def test_a_supervisor_that_a_program_stops(space, own, resident):
    """The call ends within bounds and its program is killed; the next call gets a working
    supervisor.
    """
    async with KubectlExec(
        own, namespace=space.name, resident=resident, default_timeout=60
    ) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        argv = ["sh", "-c", f"{STEAL}; exec sleep 779.{os.getpid()}"]
        done = await spawn(argv, sandbox=sandbox, timeout=5)
        assert done.error is not None
        assert done.cleanup is Cleanup.CONFIRMED
        assert not [line for line in space.processes(own) if line.startswith("sleep 779")]
        done = await spawn(["sh", "-c", "cat; exit 3"], sandbox=sandbox, stdin=b"in")
        assert (done.stdout, done.returncode) == (b"in", 3), done


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize("resident", [0, 1])
async def test_tools_that_root_has_replaced(space, own, resident):
    """If root replaces a tool by one that does nothing or fails, a failed call must not succeed,
    and a running program must not count as gone.
    """
    await check_replaced_tools(
        KubectlExec(own, namespace=space.name, resident=resident, default_timeout=60),
        lambda *argv: space("exec", own, "--", *argv).strip(),
        lambda: space.processes(own),
    )
