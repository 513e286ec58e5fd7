"""Which digits are hidden in training: ``confidence`` (OCN, the paper), ``coherent``, ``random``, ``full_mask``."""
