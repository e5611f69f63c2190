"""kubectl's own failures are never the program's. Each fault is tried in each way to run a command
in a pod, on both event loops.
"""

from __future__ import annotations

import anyio
import attrs
import pytest

from anyspawn import KubectlExec, KubectlRun, spawn
from engine_faults import FAULTS

EXECS = {
    "kubectl_exec": {"resident": 0},
    "kubectl_exec off": {"supervisor": "off"},
    "kubectl_exec resident": {"resident": 1},
}
CASES = [
    pytest.param(fault, mode, id=f"{fault.name}-{mode}")
    for fault in FAULTS
    for mode in (*EXECS, "kubectl_run")
    if mode.partition(" ")[0] in fault.modes
    # kubectl exec has no option for a working directory
    if not (fault.cwd and mode.endswith("off"))
]


def sandbox_of(mode, settings, busybox, namespace):
    common = {"namespace": namespace, "default_timeout": 60}
    if mode == "kubectl_run":
        sandbox = KubectlRun("busybox", **common)
    else:
        sandbox = KubectlExec(busybox, shared="trusted", **common, **EXECS[mode])
    known = {field.name for field in attrs.fields(type(sandbox))}
    return attrs.evolve(sandbox, **{key: value for key, value in settings.items() if key in known})


@pytest.mark.parametrize(("fault", "mode"), CASES)
def test_a_fault_is_told_from_the_programs_exit(fault, mode, space, busybox):
    """The error has the right kind, nothing was started, and the clean-up is not in doubt."""
    sandbox = sandbox_of(mode, fault.settings, busybox, space.name)
    for loop in ("asyncio", "trio"):
        done = anyio.run(once, sandbox, fault, backend=loop)
        fault.is_told(done, loop)


async def once(sandbox, fault):
    async with sandbox:
        return await spawn(fault.argv or ["cat"], cwd=fault.cwd, stdin=b"", sandbox=sandbox)
