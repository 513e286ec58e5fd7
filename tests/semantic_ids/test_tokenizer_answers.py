"""What a tokenizer of one's own may not give: codes that are none, and costs that cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.base import Tokenizer
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

VECTORS = np.arange(10, dtype=np.float32).reshape(5, 2)
GOOD = np.array([[0, 1], [0, 1], [2, 3], [3, 0], [1, 1]])
USELESS = "^what Own gives is of no use: "
COLLISIONS = pytest.mark.parametrize("collisions", ["reassign", "extra_digit", "share"])


class Own(Tokenizer):
    """Two digits of four codes, given row by row; errors and costs are what they are said to be."""

    needs_items_per_code = False

    def __init__(self, codes=GOOD, error=0.0, costs=None):
        super().__init__(2, 4, seed=0)
        self.codes, self.said, self.costs = codes, error, costs
        self.fit(TokenizerContext.of(VECTORS))

    def _fit(self, context):
        pass

    def _encode(self, embeddings):
        return self.codes

    def _error(self, embeddings, codes):
        return np.resize(self.said, len(embeddings)) if np.ndim(self.said) < 2 else self.said

    def _digit_costs(self, embeddings, codes):
        return super()._digit_costs(embeddings, codes) if self.costs is None else self.costs

    def _arrays(self):
        return {}

    def _load_arrays(self, arrays):
        pass


WRONG_CODES = [
    (GOOD + 2, r"codes of digit 0 lie in 2\.\.5; expected 0\.\.3\ncodes of digit 1 lie in 2\.\.5; expected 0\.\.3"),
    (GOOD - 1, r"codes of digit 0 lie in -1\.\.2; expected 0\.\.3"),
    (GOOD.astype(np.uint64) + 2**40, r"codes of digit 0 lie in 1099511627776\.\."),
    (GOOD + 0.5, r"codes have shape \(5, 2\) and type float64; expected whole numbers \[5, n\]"),
    (GOOD > 1, r"codes have shape \(5, 2\) and type bool; expected whole numbers"),
    (GOOD[:, [0, 1, 1]], r"codes have 3 digits, but codebook_sizes are 2: \(4, 4\); give one size a digit"),
    (GOOD[:, :1], "codes have 1 digits, but codebook_sizes are 2"),
    (GOOD[:, 0], r"codes have shape \(5,\) and type int64; expected whole numbers \[5, n\]"),
    (GOOD[:4], r"codes have shape \(4, 2\) and type int64; expected whole numbers \[5, n\]"),
]


@COLLISIONS
@pytest.mark.parametrize(("codes", "text"), WRONG_CODES)
def test_codes_that_are_none_are_refused_before_collisions_are_settled(codes, text, collisions):
    with pytest.raises(TokenizerError, match=USELESS + text):
        SemanticIds.build(Own(codes), VECTORS, collisions)


@pytest.mark.parametrize(("codes", "text"), WRONG_CODES)
def test_and_of_items_that_come_or_change(codes, text):
    tokenizer = Own()
    ids, _ = SemanticIds.build(tokenizer, VECTORS)
    tokenizer.codes = codes
    with pytest.raises(TokenizerError, match=USELESS + text):
        ids.extended(tokenizer, VECTORS)
    with pytest.raises(TokenizerError, match=USELESS + text):
        ids.moved(np.arange(5), tokenizer, VECTORS)


WRONG_NUMBERS = [
    ({"error": np.nan}, "errors of Own are NaN or infinite for 5 of 5 items; expected finite numbers"),
    ({"error": [0, 1, np.inf, 0, 2]}, "errors of Own are NaN or infinite for 1 of 5 items"),
    ({"error": np.zeros((5, 1))}, r"errors of Own have shape \(5, 1\) and type float64; expected numbers \(5,\)"),
    ({"error": "near"}, r"errors of Own have shape \(5,\) and type <U4; expected numbers \(5,\)"),
]


@pytest.mark.parametrize(("settings", "text"), WRONG_NUMBERS)
@pytest.mark.parametrize("collisions", ["extra_digit", "share"])
def test_errors_that_mean_nothing_are_refused(settings, text, collisions):
    with pytest.raises(TokenizerError, match=f"^{text}"):
        SemanticIds.build(Own(**settings), VECTORS, collisions)


WRONG_COSTS = [
    ({"error": np.nan}, r"errors of Own are NaN or infinite for \d of \d items; expected finite numbers"),
    ({"costs": np.full((2, 2, 4), np.nan)}, "costs of digits of Own are NaN or infinite for 2 of 2 items"),
    ({"costs": np.full((2, 2, 4), np.inf)}, "costs of digits of Own are NaN or infinite for 2 of 2 items"),
    (
        {"costs": np.zeros((2, 2))},
        r"costs of digits of Own have shape \(2, 2\) and type float64; expected numbers \(2, 2, 4\)",
    ),
]


@pytest.mark.parametrize(("settings", "text"), WRONG_COSTS)
def test_repair_ends_where_costs_mean_nothing(settings, text):
    """Two items share their digits, and one of them is to move."""
    with pytest.raises(TokenizerError, match=f"^{text}"):
        SemanticIds.build(Own(**settings), VECTORS)


def test_whole_numbers_will_do_as_costs():
    ids, report = SemanticIds.build(Own(error=3, costs=np.arange(16).reshape(2, 2, 4)), VECTORS)
    assert len(np.unique(ids.codes, axis=0)) == 5 and report.moved_items == 1 and report.quantisation_error == 3
