"""The Claude Agent SDK (claude-agent-sdk): `BoxTransport` runs the CLI in a box, `tool_hooks` asks
hooks about its tools.
"""

from __future__ import annotations

from anyspawn.contrib._common import needs

with needs("claude-agent-sdk"):
    from anyspawn.contrib._claude_hooks import tool_hooks
    from anyspawn.contrib._claude_transport import BoxTransport

__all__ = ["BoxTransport", "tool_hooks"]
