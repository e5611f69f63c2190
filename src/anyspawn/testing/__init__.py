"""The conformance kit: anyspawn's promises as pytest checks, for any sandbox and for
boxes in it.
"""

from __future__ import annotations

try:
    import pytest
except ImportError:
    raise ImportError(
        "anyspawn.testing needs pytest; install it with: pip install pytest"
    ) from None

for _module in ("_boxes", "_conformance", "_kit"):
    pytest.register_assert_rewrite(f"anyspawn.testing.{_module}")

from anyspawn.testing._boxes import BoxConformance  # noqa: E402  rewritten from here on
from anyspawn.testing._conformance import SandboxConformance  # noqa: E402

__all__ = ["BoxConformance", "SandboxConformance"]
