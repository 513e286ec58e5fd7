"""Which share of queries a retriever was fitted on, told by the smallest hashes of their texts."""

from __future__ import annotations

import pytest

from diffgrm.data.query_sketch import KEPT, QuerySketch


def asked(first, last):
    return [f"question {number}" for number in range(first, last)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_many_queries_is_told_from_few_hashes(share):
    sketch = QuerySketch.from_dict(QuerySketch.of(asked(0, 30_000)).to_dict())
    assert len(sketch.hashes) == KEPT and not sketch.whole
    found = sketch.share(asked(0, round(share * 20_000)) + asked(30_000, 30_000 + round((1 - share) * 20_000)))
    assert found == share if share in (0, 1) else found == pytest.approx(share, abs=0.05)


def test_few_queries_are_told_exactly_and_white_space_around_them_is_no_matter():
    sketch = QuerySketch.of(asked(0, KEPT))
    assert sketch.whole and sketch.share(asked(KEPT - 1, KEPT + 3)) == 0.25
    assert sketch.share([" question 7\n"]) == 1 and sketch.share([]) is None


def test_what_lies_beyond_the_hashes_cannot_be_told():
    sketch = QuerySketch(("0000000000000001",), whole=False)
    assert sketch.share(asked(0, 5)) is None


@pytest.mark.parametrize(
    "raw", [{}, {"hashes": [], "whole": False}, {"hashes": [1], "whole": True}, {"hashes": "ab", "whole": 1}]
)
def test_something_else_is_refused(raw):
    with pytest.raises((KeyError, TypeError, ValueError)):
        QuerySketch.from_dict(raw)
