"""Training: one loop (``loop``), and what is optimised in it (``objective``, ``diffusion``)."""

from diffgrm.training.loop import TrainingResult, train
from diffgrm.training.objective import Objective

__all__ = ["Objective", "TrainingResult", "train"]
