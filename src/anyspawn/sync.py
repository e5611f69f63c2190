"""The same for threads: calls that block until they are done.

Everything runs on one event loop of this module's own, in a thread beside, which the first call
starts. A call may be made in any thread. One that is interrupted, as by a KeyboardInterrupt, is
cancelled: its work is gone when the exception goes on. What is open when the interpreter exits is
closed then, as far as possible; a process that ``os.fork`` makes has an event loop of its own, and
none of its parent's boxes.

Callbacks, such as ``on_output``, are called in that thread, and cannot call these functions. In a
thread that runs an event loop of its own they work, and hold it up: await anyspawn's there.
"""

from __future__ import annotations

from anyspawn._sync import (
    Box,
    HookRunner,
    Process,
    PythonSession,
    ReceiveStream,
    SendStream,
    Stream,
    open_box,
    run_hooks,
    spawn,
)

__all__ = [
    "Box",
    "HookRunner",
    "Process",
    "PythonSession",
    "ReceiveStream",
    "SendStream",
    "Stream",
    "open_box",
    "run_hooks",
    "spawn",
]
