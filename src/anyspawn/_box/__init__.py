"""The box: a place that stays between calls, with files and state, and ends as a whole."""

from __future__ import annotations

from anyspawn._box.box import Box, open_box, start_box

__all__ = ["Box", "open_box", "start_box"]
