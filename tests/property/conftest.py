"""How laws are tried."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes is the machine's affair: it may be busy with other tests.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
