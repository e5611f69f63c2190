"""anyspawn for threads: calls that block until they are done.

Everything runs on one event loop in a background thread, which the first call starts. You can call
from any thread. An exception such as KeyboardInterrupt cancels the call: anyspawn kills the program
before the exception continues. At the exit of the interpreter, anyspawn closes what is still open,
as far as possible. A process made by ``os.fork`` gets its own event loop, and none of its parent's
boxes.

Callbacks, such as ``on_output``, run in the background thread and cannot call these functions. In a
thread that runs an event loop, these functions work but block that loop; await the functions of
`anyspawn` there.
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
    attach_box,
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
    "attach_box",
    "open_box",
    "run_hooks",
    "spawn",
]
