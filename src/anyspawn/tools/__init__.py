"""The other programs of a RuntimeConfig: tools, evaluators and selectors, each with a typed
result.
"""

from __future__ import annotations

from anyspawn.tools._exec import AnswerError, ExecEval, ExecSelector, ExecTool
from anyspawn.tools._results import Pending, Selection, ToolResult

__all__ = [
    "AnswerError",
    "ExecEval",
    "ExecSelector",
    "ExecTool",
    "Pending",
    "Selection",
    "ToolResult",
]
