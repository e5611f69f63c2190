"""Programs that take all that they can get, in a pod with `Limits`. The outcome says so, and the
host stays usable. For memory see test_kubectl_run.py.
"""

from __future__ import annotations

import pytest

from anyspawn import Cleanup, KubectlRun, Limits, SpawnTimeoutError, spawn

pytestmark = pytest.mark.anyio

BURN = "burn() { while :; do :; done; }; burn & burn & echo started; burn"


async def test_what_burns_processors_times_out(space):
    """The program is killed with all its processes, and this host can still start programs
    meanwhile.
    """
    box = KubectlRun("busybox", namespace=space.name, limits=Limits(cpu=0.5, memory="64MiB"))

    async def other(stream, chunk):
        await spawn(["true"], timeout=60, check=True)

    done = await spawn(["sh", "-c", BURN], sandbox=box, timeout=12, on_output=other)
    assert isinstance(done.error, SpawnTimeoutError)
    assert (done.stdout, done.cleanup) == (b"started\n", Cleanup.CONFIRMED)
