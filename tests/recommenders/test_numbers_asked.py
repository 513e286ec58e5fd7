"""Numbers of items, semantic IDs and users that are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation.schema import DataError
from diffgrm.recommenders.by_blocks import recommend_blocks

HISTORY = ["item 3", "item 77", "item 410"]


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "3", None])
def test_what_is_no_number_is_told(fitted, number):
    for ask in (fitted.recommend, fitted.recommend_sids, lambda histories, k: fitted.similar_items("item 3", k)):
        with pytest.raises(DataError, match=f"^k is {number!r}; expected a whole number from 1$"):
            ask([HISTORY], k=number)
    with pytest.raises(DataError, match=f"^users_at_once is {number!r}; expected a whole number from 1$"):
        next(recommend_blocks(fitted, [HISTORY], users_at_once=number))


def test_no_more_than_there_are_items_can_be_asked_for(fitted):
    for ask in (fitted.recommend, fitted.recommend_sids):
        with pytest.raises(DataError, match="k is 481, but the catalogue has only 480 items; ask for at most that many"):
            ask([HISTORY], k=481)
        assert ask([HISTORY], k=np.int64(3)).equals(ask([HISTORY], k=3))
