"""The box: a sandbox that stays between calls, with its files, and ends as a whole."""

from __future__ import annotations

from anyspawn._box.box import Box, attach_box, open_box, start_box
from anyspawn._box.python import PythonFailure, PythonResult, PythonSession

__all__ = [
    "Box",
    "PythonFailure",
    "PythonResult",
    "PythonSession",
    "attach_box",
    "open_box",
    "start_box",
]
