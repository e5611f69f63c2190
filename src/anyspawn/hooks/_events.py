"""Events of agent tools that match no phase of anyspawn, under their own names."""

from __future__ import annotations

from typing import Literal

__all__ = ["AgentEvent"]

AgentEvent = Literal[
    # Claude Code; Codex has some of them, too
    "Setup",
    "UserPromptExpansion",
    "PermissionRequest",
    "PermissionDenied",
    "PostToolUseFailure",
    "PostToolBatch",
    "Notification",
    "MessageDisplay",
    "SubagentStart",
    "SubagentStop",
    "TaskCreated",
    "TaskCompleted",
    "Stop",
    "StopFailure",
    "TeammateIdle",
    "InstructionsLoaded",
    "ConfigChange",
    "CwdChanged",
    "DirectoryAdded",
    "FileChanged",
    "WorktreeCreate",
    "WorktreeRemove",
    "PreCompact",
    "PostCompact",
    "Elicitation",
    "ElicitationResult",
    "PreModelSwitch",
    "PostModelSwitch",
    # Gemini CLI
    "AfterAgent",
    "BeforeToolSelection",
    "PreCompress",
    # Cursor
    "beforeShellExecution",
    "afterShellExecution",
    "beforeMCPExecution",
    "afterMCPExecution",
    "beforeReadFile",
    "afterFileEdit",
    "beforeTabFileRead",
    "afterTabFileEdit",
    "afterAgentResponse",
    "afterAgentThought",
    "workspaceOpen",
    "stop",
    # Cursor and GitHub Copilot CLI
    "postToolUseFailure",
    "preCompact",
    "subagentStart",
    "subagentStop",
    # GitHub Copilot CLI
    "agentStop",
    "errorOccurred",
    "notification",
    "permissionRequest",
]
