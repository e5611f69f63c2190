"""anyspawn: run other people's programs from async Python, and leave nothing running behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyspawn._call import open_process, spawn, start_process
from anyspawn._limits import Limits
from anyspawn._model import (
    Cleanup,
    Command,
    Completed,
    EgressCounts,
    FdArg,
    Fill,
    Launch,
    Sandbox,
    Task,
)
from anyspawn._registry import (
    Registry,
    SandboxFactory,
    default_registry,
    lookup_sandbox,
    register_sandbox,
    replace_sandbox,
)
from anyspawn._sandbox import ArgvSandbox
from anyspawn.exceptions import (
    AnyspawnError,
    ConfigError,
    ExitError,
    NotStartedError,
    OutputLimitError,
    PlantedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.sandboxes.direct import Direct

if TYPE_CHECKING:
    from anyspawn._box import (
        Box,
        PythonFailure,
        PythonResult,
        PythonSession,
        attach_box,
        open_box,
        start_box,
    )
    from anyspawn._egress import Egress
    from anyspawn._spawn.live import Process
    from anyspawn.sandboxes.bubblewrap import Bubblewrap
    from anyspawn.sandboxes.docker_exec import DockerExec
    from anyspawn.sandboxes.docker_run import DockerRun
    from anyspawn.sandboxes.kubectl_exec import KubectlExec
    from anyspawn.sandboxes.kubectl_run import KubectlRun

__version__ = "0.1.0"

__all__ = [
    "AnyspawnError",
    "ArgvSandbox",
    "Box",
    "Bubblewrap",
    "Cleanup",
    "Command",
    "Completed",
    "ConfigError",
    "Direct",
    "DockerExec",
    "DockerRun",
    "Egress",
    "EgressCounts",
    "ExitError",
    "FdArg",
    "Fill",
    "KubectlExec",
    "KubectlRun",
    "Launch",
    "Limits",
    "NotStartedError",
    "OutputLimitError",
    "PlantedError",
    "Process",
    "PythonFailure",
    "PythonResult",
    "PythonSession",
    "Registry",
    "Sandbox",
    "SandboxFactory",
    "SpawnError",
    "SpawnTimeoutError",
    "Task",
    "TransportError",
    "__version__",
    "attach_box",
    "default_registry",
    "lookup_sandbox",
    "open_box",
    "open_process",
    "register_sandbox",
    "replace_sandbox",
    "spawn",
    "start_box",
    "start_process",
]

_BOX = (
    *("Box", "PythonFailure", "PythonResult", "PythonSession"),
    *("attach_box", "open_box", "start_box"),
)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: most programs use one kind of sandbox, and need not wait
    for the others.
    """
    from anyspawn._registry import LATER

    others = (
        ("anyspawn._spawn.live", "Process"),
        ("anyspawn._egress", "Egress"),
        *(("anyspawn._box", box) for box in _BOX),
    )
    for module, found in (*LATER.values(), *others):
        if found == name:
            from importlib import import_module

            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
