"""How far training is: what losses and schedules that change under way go by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningContext:
    """Where in training a loss is asked for. A pure function of the step, so a resumed run sees the same.

    What changes under way goes by :attr:`progress`: a fitted model that goes on learning has been through it.

    Attributes:
        step: optimiser steps done, of ``steps`` planned.
        epoch: passes over the data done, of ``epochs`` planned.
        going_on: the weights come from a fit, whose curriculum has ended.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    going_on: bool = False

    @classmethod
    def start(cls) -> LearningContext:
        """The first step of the shortest training, for losses asked for outside of one."""
        return cls(step=0, steps=1, epoch=0, epochs=1)

    @property
    def progress(self) -> float:
        """Share of the planned steps that is done, from 0 to 1; all of them where a fitted model goes on.

        >>> LearningContext(step=30, steps=40, epoch=3, epochs=4).progress
        0.75
        >>> LearningContext(step=30, steps=40, epoch=3, epochs=4, going_on=True).progress
        1.0
        """
        return 1.0 if self.going_on else min(self.step / max(self.steps, 1), 1.0)
