"""What a graph answers is looked at before a list is made of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from diffgrm.foundation.schema import DiffGRMError
from diffgrm.runtime_onnx.network import Memory, Network

MEMORY = Memory(*(np.zeros((1, 1, 1, 1, 1), dtype=np.float32),) * 2, np.ones((1, 1), dtype=bool), np.zeros((1, 1)))


def network(logits):
    found = Network.__new__(Network)
    names = {"get_outputs": lambda: [SimpleNamespace(name="logits")], "get_inputs": lambda: []}
    found._denoise = SimpleNamespace(**names, run=lambda *_: [logits])
    return found


def test_logits_of_unknown_digits_are_numbers():
    logits, codes, mask = (
        np.zeros((1, 1, 3, 4), dtype=np.float32),
        np.zeros((1, 1, 3), dtype=int),
        np.array([[[1, 0, 1]]]) > 0,
    )
    logits[0, 0, 1], logits[0, 0, 0, 2] = np.nan, -np.inf
    assert network(logits).denoise(codes, mask, MEMORY) is logits
    logits[0, 0, 2, 3] = np.nan
    with pytest.raises(DiffGRMError, match="the exported network says: 1 of 3 answers of denoise are NaN or infinite"):
        network(logits).denoise(codes, mask, MEMORY)
