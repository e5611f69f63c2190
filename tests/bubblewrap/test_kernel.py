"""A program in the sandbox cannot change the settings of the host's kernel."""

from __future__ import annotations

import json
import os
import sys

import pytest

from anyspawn import Bubblewrap, spawn
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]

WALK = """
import json, os, stat, sys

def opened(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True

def files():
    for top in ("/proc", "/sys", "/dev/shm"):
        for folder, folders, names in os.walk(top):
            if folder == "/proc":
                folders[:] = [name for name in folders if not name.isdigit()]
            for name in names:
                path = os.path.join(folder, name)
                if not stat.S_ISLNK(os.lstat(path).st_mode):
                    yield path

seen = list(files())
settings = [path for path in seen if path.startswith("/proc/sys/")]
print(json.dumps([len(settings), [path for path in seen if opened(path)]]))
"""
"""Prints how many kernel settings are visible, and which files outside the processes' own folders
can be opened for writing.
"""

NESTED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
REMOUNT, BIND, DETACH = 32, 4096, 2

if libc.unshare(NEWUSER | NEWNS | NEWPID | NEWNET) == 0:
    if os.fork():
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
    for name in os.listdir("/proc"):
        path = f"/proc/{name}".encode()
        libc.mount(None, path, None, REMOUNT | BIND, None)
        libc.umount2(path, DETACH)
    libc.mount(b"proc", b"/proc", b"proc", 0, None)
    libc.mount(b"sysfs", b"/dev/shm", b"sysfs", 0, None)
"""
"""Enters new namespaces with all capabilities if it can, tries to undo the mounts over /proc, and
to mount the kernel's file systems again.
"""


async def walked(sandbox, code=WALK):
    done = await spawn([sys.executable, "-c", code], sandbox=sandbox, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("code", [WALK, NESTED + WALK], ids=["plain", "nested"])
@pytest.mark.parametrize(
    "sandbox",
    [Bubblewrap(bind_program=True), Bubblewrap(readonly=["/sys"], bind_program=True)],
    ids=["", "readonly"],
)
async def test_nothing_of_the_kernel_can_be_opened_for_writing(sandbox, code):
    """Under /proc and /sys the program can write only to its own processes' files. It can still
    read the settings.
    """
    settings, writable = await walked(sandbox, code)
    assert settings > 100
    assert not writable


@pytest.mark.parametrize("code", [WALK, NESTED + WALK], ids=["plain", "nested"])
def test_nor_by_a_sandbox_of_an_ordinary_user(unprivileged, code):
    """The same holds if a user without privileges starts the sandbox."""
    if os.getuid() != 0:
        pytest.skip("this user is an ordinary one, and the other test has shown it")
    run = (
        "import anyio, sys\n"
        "from anyspawn import Bubblewrap, spawn\n"
        "argv = ['/usr/bin/python3', '-c', sys.argv[1]]\n"
        "done = anyio.run(lambda: spawn(argv, sandbox=Bubblewrap(), timeout=60, check=True))\n"
        "print(done.stdout.decode())\n"
    )
    settings, writable = json.loads(unprivileged.run(run, code).stdout)
    assert settings > 100
    assert not writable
