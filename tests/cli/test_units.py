"""Laws and examples of durations and sizes."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyspawn._fields import parse_size
from anyspawn.cli.units import parse_duration

SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}
BYTES = {
    "": 1, "B": 1,
    "k": 2**10, "K": 2**10, "KiB": 2**10, "kB": 2**10, "KB": 2**10,
    "M": 2**20, "MiB": 2**20, "MB": 2**20,
    "G": 2**30, "GiB": 2**30, "GB": 2**30,
    "T": 2**40, "TiB": 2**40, "TB": 2**40,
}  # fmt: skip


@given(st.integers(1, 10**12), st.sampled_from(sorted(SECONDS)), st.sampled_from(["", " "]))
def test_a_duration_is_its_number_times_its_unit(number, unit, space):
    """A whole number with a unit is that many of the unit."""
    assert parse_duration(f"{number}{space}{unit}") == pytest.approx(
        number * SECONDS[unit], rel=1e-12
    )


@given(st.floats(0.001, 1e6))
def test_a_bare_number_is_seconds(number):
    """A decimal number without a unit is a number of seconds."""
    assert parse_duration(f"{number:.6f}") == float(f"{number:.6f}")


@given(st.integers(0, 10**18 - 1), st.sampled_from(sorted(BYTES)))
def test_a_size_is_exact(number, unit):
    """A whole number with a unit is exactly that many bytes, however large, in upper or
    lower case.
    """
    assert parse_size(f"{number}{unit}") == number * BYTES[unit]
    assert parse_size(f"{number}{unit.lower()}") == parse_size(f"{number}{unit.upper()}")


@given(st.text())
def test_any_other_text_is_a_value_error(text):
    """Any text gives a value in range or a ValueError, never another exception."""
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1.5s", 1.5),
        (".5", 0.5),
        ("2m", 120),
        ("1h", 3600),
        (" 5 s ", 5),
        ("inf", math.inf),
    ],
)
def test_durations_as_people_write_them(text, seconds):
    """Units, fractions and spaces are accepted, and "inf" means no limit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5x", "-1s", "+1s", "1e3", "nan", "5 s s", "1h30m", "٣s", "5M", "9" * 400]
)
def test_what_is_no_duration_is_told_how_to_write_one(text):
    """The error shows the text and how to write a duration."""
    with pytest.raises(ValueError, match=r"is not a duration; write 500ms, 5s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0.0ms", "000"])
def test_no_time_at_all_is_refused(text):
    """Zero means neither "no limit" nor "at once"; the error says how to write the former."""
    with pytest.raises(ValueError, match=r"above 0, or inf for no limit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MiB", 10 * 2**20),
        ("10MB", 10 * 2**20),
        ("10k", 10240),
        ("0", 0),
        ("1.5KiB", 1536),
        ("1.5", 1),
    ],
)
def test_sizes_as_people_write_them(text, size):
    """Every unit is a power of 1024, in any spelling; a fraction of a byte is dropped."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "10x", "-1", "1e3", "inf", "10 Mi", "٣"])
def test_what_is_no_size_is_told_how_to_write_one(text):
    """The error shows the text and how to write a size."""
    with pytest.raises(ValueError, match=r"is not a size; write a number of bytes"):
        parse_size(text)
