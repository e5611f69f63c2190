"""How long 100 calls in a row take in a running container: docker exec, and `DockerExec` with
supervisors that stay and without. It makes a container of busybox, and removes it.
"""

from __future__ import annotations

import subprocess
import time

import anyio

from anyspawn import DockerExec, spawn

CALLS = 100


def main() -> None:
    begun = ["docker", "run", "-d", "--rm", "--init", "busybox", "sleep", "1000"]
    container = subprocess.run(begun, check=True, capture_output=True, text=True).stdout.strip()
    try:
        began = time.perf_counter()
        for _ in range(CALLS):
            subprocess.run(["docker", "exec", container, "true"], check=True)
        print(f"docker exec: {time.perf_counter() - began:.2f} s")
        for sandbox in (
            DockerExec(container, resident=0, shared="trusted"),
            DockerExec(container, shared="trusted"),
            DockerExec(container, resident=8, shared="trusted"),
        ):
            seconds = anyio.run(in_a_row, sandbox)
            print(f"DockerExec(resident={sandbox.resident!r}): {seconds:.2f} s")
    finally:
        subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)


async def in_a_row(sandbox: DockerExec) -> float:
    """Return the seconds that all calls take."""
    async with sandbox:
        began = time.perf_counter()
        for _ in range(CALLS):
            await spawn(["true"], sandbox=sandbox, check=True)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
