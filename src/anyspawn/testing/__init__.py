"""The conformance kit: what anyspawn promises of a sandbox, as checks that pytest runs over any."""

from __future__ import annotations

try:
    import pytest
except ImportError:
    raise ImportError(
        "anyspawn.testing needs pytest; install it with: pip install pytest"
    ) from None

pytest.register_assert_rewrite("anyspawn.testing._conformance")

from anyspawn.testing._conformance import SandboxConformance  # noqa: E402  rewritten from here on

__all__ = ["SandboxConformance"]
