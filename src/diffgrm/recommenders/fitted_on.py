"""Whether a split is the one that a model learnt from: if it is not, the model may know what the split holds out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from diffgrm.data.dataset import Split
from diffgrm.foundation.sections import DataSettings


class FittedOn(NamedTuple):
    """What a model's facts tell of a split that it is measured on.

    Attributes:
        same: it is the split that the model was fitted on, or last went on learning with; None: the facts do not tell.
        another_before: the model went on learning, and learnt from another split before (or the facts do not tell).
    """

    same: bool | None
    another_before: bool

    @classmethod
    def of(cls, facts: Mapping[str, Any], split: Split) -> FittedOn:
        """Compare the fingerprint of a split with those that a fit notes.

        Args:
            facts: of the recommender.
        """
        if (went_on := facts.get("went_on")) is None:
            found, another_before = facts.get("training_fingerprint"), False
        else:
            found, another_before = went_on.get("split"), went_on.get("one_split") is not True
        return cls(None if found is None else found == split.fingerprint, another_before)

    def to_dict(self) -> dict[str, Any]:
        """What is written beside metrics."""
        return {"split_of_the_fit": self.same, "learnt_from_another_split_before": self.another_before}

    def sentences(self, data: DataSettings) -> list[str]:
        """The same for people; nothing where nothing is to be feared.

        Where a table only grows by later events, every split of ours holds out what comes later than all that was trained
        on before.

        Args:
            data: how the split was made.

        >>> FittedOn(True, False).sentences(DataSettings())
        []
        """
        if self.same and not self.another_before:
            return []
        why = {
            True: "the model last went on learning with this very split, but learnt from another one before",
            False: "this is not the split that the model was fitted on (other rows, items or cuts)",
            None: "the model was saved by an earlier diffgrm, and does not tell which split it last learnt from",
        }[self.same]
        lines = [
            f"Warning: {why}, so that it may have learnt from events that are held out here, and figures may be too good. "
            "They are sound if these tables hold all that it learnt from, and besides only later events"
            + ("." if self.same else "; else measure it with the tables that it was fitted on.")
        ]
        by_shares = [f"data.{name}_share" for name in ("validation", "test") if getattr(data, f"{name}_from") is None]
        if not self.same and data.split == "temporal" and by_shares:
            dates = [name.replace("_share", "_from") for name in by_shares]
            lines.append(
                f"Cuts by shares ({', '.join(by_shares)}) are made anew on each table; to keep them, fit with dates "
                f"({', '.join(dates)})."
            )
        return lines
