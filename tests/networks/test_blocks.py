from __future__ import annotations

import pytest
import torch

from diffgrm.networks import blocks
from diffgrm.networks.blocks import Attention, at_once, evaluating


@pytest.mark.parametrize("mask", ["none", "padding", "causal"])
def test_attention_over_many_rows_is_that_of_its_parts(mask, monkeypatch):
    torch.manual_seed(0)
    attention, x = Attention(8, 2), torch.randn(10, 4, 8)
    valid = (torch.arange(4) < torch.randint(1, 5, (10, 1)))[:, None] if mask == "padding" else None

    def attended():
        return attention.attend(attention.query(x), *attention.project(x), valid, mask == "causal")

    whole = attended()
    monkeypatch.setattr(blocks, "MOST_ROWS", 4)
    assert torch.allclose(attended(), whole, atol=1e-6)


def test_a_gpu_computes_more_at_once():
    assert at_once(5, torch.device("cpu")) == 5
    assert at_once(5, torch.device("meta")) > 5


def test_every_module_gets_its_mode_back():
    network = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    network[1].eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert network.training and network[0].training and not network[1].training and not network[1][0].training
