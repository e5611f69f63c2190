"""Programs that take all that they can get, in a pod with `Limits`: the outcome says what they did,
and the host stays usable. What takes too much memory is in test_kubectl_run.py.
"""

from __future__ import annotations

import pytest

from anyspawn import Cleanup, KubectlRun, Limits, SpawnTimeoutError, spawn

pytestmark = pytest.mark.anyio

BURN = "burn() { while :; do :; done; }; burn & burn & echo started; burn"


async def test_what_burns_processors_times_out(space):
    """All of it is gone, and this host starts programs meanwhile."""
    box = KubectlRun("busybox", namespace=space.name, limits=Limits(cpu=0.5, memory="64MiB"))

    async def other(stream, chunk):
        await spawn(["true"], timeout=60, check=True)

    done = await spawn(["sh", "-c", BURN], sandbox=box, timeout=12, on_output=other)
    assert isinstance(done.error, SpawnTimeoutError)
    assert (done.stdout, done.cleanup) == (b"started\n", Cleanup.CONFIRMED)
