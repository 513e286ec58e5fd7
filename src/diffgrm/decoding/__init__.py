"""From digit probabilities to items: ``any_order_beam`` (CPD, the paper), ``one_pass``, ``exhaustive``."""

from diffgrm.decoding.base import Decoded, Decoder, Task

__all__ = ["Decoded", "Decoder", "Task"]
