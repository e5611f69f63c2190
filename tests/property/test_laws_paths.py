"""A law about bwrap's binds, and one about a flag."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyspawn import Bubblewrap, Command

spellings = st.lists(st.sampled_from(["/", "//", ".", "..", "usr", "-x", "home"]), max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)


@given(cwd=spellings, program=spellings)
def test_the_root_is_never_bound_unasked(cwd, program):
    """No folder that the command implies is the host's root, in whatever spelling."""
    argv = Bubblewrap().launch(Command([program], cwd=cwd)).argv[:-2]
    sources = [
        argv[index + 1]
        for index, word in enumerate(argv)
        if word in {"--bind", "--ro-bind", "--ro-bind-try"}
    ]
    assert all(source.strip("/") for source in sources)


@given(value=st.sampled_from(["no", "false", 0, 1, None, "", [], "yes"]))
def test_inherit_env_takes_nothing_but_a_flag(value):
    """Direct refuses a wrong value of the field, and the message names it."""
    import pytest

    from anyspawn import ConfigError, lookup_sandbox

    with pytest.raises(ConfigError, match="inherit_env"):
        lookup_sandbox("direct")("d", {"inherit_env": value})
