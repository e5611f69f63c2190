"""What is kept of a stream: the beginning and the end, whatever the chunks are that it comes in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyspawn._spawn.streams import Capture, _rotate


@given(st.binary(max_size=80), st.integers(0, 80), st.integers(1, 12))
def test_rotation(data, left, most):
    """The first bytes come behind the others, however few may be held twice."""
    left = min(left, len(data))
    turned = bytearray(data)
    _rotate(memoryview(turned), left, most=most)
    assert turned == data[left:] + data[:left]


@given(st.integers(0, 20), st.lists(st.binary(max_size=15), max_size=15))
def test_head_and_tail(limit, chunks):
    """Half each of what is too long, all of what is not, and the total."""
    output = Capture(limit, "truncate")
    for chunk in chunks:
        output.keep(chunk)
    whole, tail = b"".join(chunks), limit // 2
    kept = (
        whole if len(whole) <= limit else whole[: limit - tail] + (whole[-tail:] if tail else b"")
    )
    output.value()  # looking changes nothing
    assert (output.value(), output.total) == (kept, len(whole))
