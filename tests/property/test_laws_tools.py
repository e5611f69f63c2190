"""Any answer of a tool, an evaluator or a selector is read or refused."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from anyspawn.hooks._wire import WireError, decode_object
from anyspawn.tools._results import score, selection, tool_result

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ("result", "error", "pending", "score", "detail", "data", "selected", "reason")
ANSWERS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4) | VALUES


@given(ANSWERS)
def test_a_tool_that_names_an_error_gave_no_result(answer: object) -> None:
    """An answer with an error or a pending state never counts as a result, and neither does an
    answer without a result.
    """
    try:
        read = tool_result(answer)
    except WireError:
        return
    assert isinstance(answer, dict)
    if read.ok:
        assert "result" in answer
        assert read.result == answer["result"]
        assert not answer.get("error")
        assert answer.get("pending") is None
    else:
        assert answer.get("result") is None
        assert bool(answer.get("error")) is (read.error is not None)
        assert (answer.get("pending") is not None) is (read.pending is not None)


@given(ANSWERS, st.sets(st.text(max_size=5), max_size=3))
def test_scores_and_selections(answer: object, known: set[str]) -> None:
    """A score is the number in the answer. Only candidates are selected, each once."""
    try:
        found = score(answer)
    except WireError:
        pass
    else:
        assert isinstance(answer, dict)
        assert found.score == answer["score"]
    try:
        chosen = selection(answer, known)
    except WireError:
        return
    assert set(chosen.selected) <= known
    assert len(set(chosen.selected)) == len(chosen.selected)


@given(st.binary(max_size=50) | ANSWERS.map(lambda answer: json.dumps(answer).encode()))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Any bytes are read, or refused with a WireError."""
    for read in (tool_result, score, lambda answer: selection(answer, ())):
        try:
            read(decode_object(data))
        except WireError:
            continue
