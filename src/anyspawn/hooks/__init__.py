"""Exec hooks: programs that are asked, before and after an agent's calls, whether the work may go
on.
"""

from __future__ import annotations

from anyspawn.hooks._decision import Decision
from anyspawn.hooks._exec import (
    ExecEvalHook,
    ExecHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookError,
)
from anyspawn.hooks._payloads import (
    EvalResult,
    ProviderRequest,
    ProviderResponse,
    SessionEvent,
    ToolRequest,
    ToolResponse,
)
from anyspawn.hooks._runner import HookRunner, run_hooks

__all__ = [
    "Decision",
    "EvalResult",
    "ExecEvalHook",
    "ExecHook",
    "ExecProviderHook",
    "ExecSessionHook",
    "ExecToolHook",
    "HookError",
    "HookRunner",
    "ProviderRequest",
    "ProviderResponse",
    "SessionEvent",
    "ToolRequest",
    "ToolResponse",
    "run_hooks",
]
