"""Capture keeps the beginning and the end of a stream, whatever its chunks are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyspawn._spawn.streams import Capture, _rotate


@given(st.binary(max_size=80), st.integers(0, 80), st.integers(1, 12))
def test_rotation(data, left, most):
    """The first bytes move behind the others, however small the buffer is."""
    left = min(left, len(data))
    turned = bytearray(data)
    _rotate(memoryview(turned), left, most=most)
    assert turned == data[left:] + data[:left]


@given(st.integers(0, 20), st.lists(st.binary(max_size=15), max_size=15))
def test_head_and_tail(limit, chunks):
    """Long output keeps half the limit at each end, shorter output is kept whole; both count the
    total.
    """
    output = Capture(limit, "truncate")
    for chunk in chunks:
        output.keep(chunk)
    whole, tail = b"".join(chunks), limit // 2
    kept = (
        whole if len(whole) <= limit else whole[: limit - tail] + (whole[-tail:] if tail else b"")
    )
    output.value()  # reading the value must not change it
    assert (output.value(), output.total) == (kept, len(whole))
