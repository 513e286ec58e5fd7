"""Which digits are hidden in training: ``confidence`` (OCN, the paper), ``coherent``, ``random``, ``full_mask``."""

from diffgrm.noising.base import NoisingSchedule, Views

__all__ = ["NoisingSchedule", "Views"]
