from __future__ import annotations

import pytest

from diffgrm.foundation.after_fit import changed_after_fit
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError

FITTED = Recipe()


@pytest.mark.parametrize(
    "override",
    [
        "decoding.candidates=64",
        "decoding=one_pass",
        "decoding={name: one_pass}",
        "evaluation={ks: [3]}",
        "retrieval.index=exact",
    ],
)
def test_late_settings_may_be_changed_one_by_one_or_a_section_at_once(override):
    assert changed_after_fit(FITTED, [override]) == FITTED.override([override])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.width=64", "can change after fit, not model.width=64"),
        ("model.width=63", "can change after fit, not model.width=63"),
        ("model={width: 64}", r"can change after fit, not model=\{width: 64\}"),
        ("item_scoring.vectors.wieght=1", "scorer 'vectors' has no setting 'wieght'; did you mean 'weight'"),
        ("decodign.candidates=64", "there is no setting 'decodign'; did you mean 'decoding'"),
        ("model.widht=64", "has no setting 'widht'; did you mean 'width'"),
    ],
)
def test_what_fitting_has_used_up_stays_and_a_misspelt_name_is_told_as_such(override, told):
    with pytest.raises(RecipeError, match=told):
        changed_after_fit(FITTED, ["decoding.candidates=64", override])
