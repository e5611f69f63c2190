"""Exec hooks: programs that decide, before and after an agent's calls, whether the work can
continue.
"""

from __future__ import annotations

from anyspawn.hooks._decision import Decision, DeniedError
from anyspawn.hooks._exec import (
    ExecAgentHook,
    ExecEvalHook,
    ExecHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookCall,
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
from anyspawn.hooks._phases import Phase, ProviderPhase, SessionPhase, ToolPhase
from anyspawn.hooks._runner import HookRunner, run_hooks

__all__ = [
    "Decision",
    "DeniedError",
    "EvalResult",
    "ExecAgentHook",
    "ExecEvalHook",
    "ExecHook",
    "ExecProviderHook",
    "ExecSessionHook",
    "ExecToolHook",
    "HookCall",
    "HookError",
    "HookRunner",
    "Phase",
    "ProviderPhase",
    "ProviderRequest",
    "ProviderResponse",
    "SessionEvent",
    "SessionPhase",
    "ToolPhase",
    "ToolRequest",
    "ToolResponse",
    "run_hooks",
]
