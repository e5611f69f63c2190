"""Programs that take all that they can get, in a container with `Limits`. Each reaches its limit,
its outcome says so, and the host stays usable.
"""

from __future__ import annotations

import anyio
import pytest

from anyspawn import Cleanup, DockerRun, ExitError, Limits, SpawnTimeoutError, spawn
from anyspawn.containers import SecurityConfig

pytestmark = pytest.mark.anyio

SMALL = Limits(memory="64MiB", processes=20, cpu=0.5, tmp="8MiB", files=50, file_size="4MiB")
PROGRAMS = {
    "memory": "x = bytearray(300 << 20)",
    "processes": """
import os, signal, time
made = []
try:
    while len(made) < 100:
        if (pid := os.fork()) == 0:
            time.sleep(100)
        made.append(pid)
finally:
    print(len(made), flush=True)
    for pid in made:
        os.kill(pid, signal.SIGKILL)
""",
    "disk": """
for n in range(100):
    with open(f"/tmp/{n}", "wb") as file:
        file.write(bytes(1 << 20))
    print(n, flush=True)
""",
    "one file": """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
open("/tmp/one", "wb", 0).write(bytes(6 << 20))
with open("/tmp/one", "ab", 0) as file: file.write(b"more")
""",
    "open files": "held = [open('/dev/null') for n in range(100)]",
    "processors": """
import os, time
began = time.monotonic()
children = [os.fork() for n in range(2)]
while time.monotonic() - began < 2: pass
if all(children):
    for child in children: os.waitpid(child, 0)
    print(sum(os.times()[:4]) / (time.monotonic() - began))
""",
    "time": "import os\nfor n in range(3): os.fork()\nwhile True: pass",
    "a fork bomb": "import os\nwhile True: os.fork()",
}


async def test_hogs_meet_their_limits():
    """All run at once, while the host still starts a program of its own."""
    sandbox = DockerRun("python:3-slim", security=SecurityConfig(), limits=SMALL)
    found = {}

    async def run(name, program):
        timeout = 5 if name in {"time", "a fork bomb"} else 100
        found[name] = await spawn(["python3", "-c", program], sandbox=sandbox, timeout=timeout)

    async with anyio.create_task_group() as tasks:
        for name, program in PROGRAMS.items():
            tasks.start_soon(run, name, program)
        await spawn(["true"], timeout=60, check=True)
    told = {name: str(done.error) for name, done in found.items()}
    assert found["memory"].returncode == 137, told
    assert "memory" in told["memory"]
    assert "BlockingIOError" in told["processes"]
    assert int(found["processes"].text) < 20
    assert "No space left on device" in told["disk"]
    assert int(found["disk"].text.split()[-1]) < 8
    assert "File too large" in told["one file"]
    assert "Too many open files" in told["open files"]
    assert float(found["processors"].text) < 0.8, found["processors"]
    assert isinstance(found["time"].error, SpawnTimeoutError)
    assert isinstance(found["a fork bomb"].error, (ExitError, SpawnTimeoutError))
    for name, done in found.items():
        assert done.cleanup is not Cleanup.UNCONFIRMED, (name, done)
