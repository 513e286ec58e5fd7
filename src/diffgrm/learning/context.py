"""How far training is: what losses and schedules that change under way go by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningContext:
    """Where in training a loss is asked for. A pure function of the step, so a resumed run sees the same.

    Attributes:
        step: optimiser steps done, of ``steps`` planned.
        epoch: passes over the data done, of ``epochs`` planned.
    """

    step: int
    steps: int
    epoch: int
    epochs: int

    @classmethod
    def start(cls) -> LearningContext:
        """The first step of the shortest training, for losses asked for outside of one."""
        return cls(step=0, steps=1, epoch=0, epochs=1)

    @property
    def progress(self) -> float:
        """Share of the planned steps that is done, from 0 to 1.

        >>> LearningContext(step=30, steps=40, epoch=3, epochs=4).progress
        0.75
        """
        return min(self.step / max(self.steps, 1), 1.0)
