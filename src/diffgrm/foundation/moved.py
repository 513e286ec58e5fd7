"""Where settings of 0.1 stand now, for the errors that meet them."""

from __future__ import annotations

_OF_DIGITS = "'objective.digits.{0}' of recommender=hybrid, 'objective.{0}' where digits are learnt alone"
_OF_ITEMS = "'{}' of recommender=hybrid"

MOVED = {
    "loss.reduction": _OF_DIGITS.format("reduction"),
    "loss.label_smoothing": _OF_DIGITS.format("label_smoothing"),
    "loss.item_weight": _OF_ITEMS.format("objective.item_weight"),
    "loss.share": _OF_ITEMS.format("objective.digit_fraction"),
    "decoding.co_occurrence": _OF_ITEMS.format("item_scoring.co_occurrence.weight"),
    "decoding.new_items": _OF_ITEMS.format("item_scoring.new_items.weight"),
}
SECTIONS = {path.partition(".")[0] for path in MOVED}
WHERE = "see 'What moved in 0.2' in CHANGELOG.md"


def moved(path: str) -> str:
    """A hint at where a setting went; nothing, where it has not moved.

    >>> moved("decoding.new_items")
    "; it is now 'item_scoring.new_items.weight' of recommender=hybrid (see 'What moved in 0.2' in CHANGELOG.md)"
    >>> moved("decoding.beam")
    ''
    """
    return f"; it is now {MOVED[path]} ({WHERE})" if path in MOVED else ""
