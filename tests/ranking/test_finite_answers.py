"""Logits that are no numbers are refused where they were asked for, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffgrm.foundation.schema import DiffGRMError
from diffgrm.ranking.finite_answers import check_finite, finite_answers

CODES = torch.zeros(1, 2, 3, dtype=torch.long)
MASK = torch.tensor([[[True, False, True], [True, True, True]]])


class Says(nn.Module):
    """Answers with the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.denoise = lambda codes, mask, memory: logits
        self.steered = lambda codes, mask, memory, choose: SimpleNamespace(logits=logits)
        self.next_digit = lambda code, prefix, memory: (logits[:, :, 0], prefix)
        self.guess = lambda anything: logits


def asked(network, method):
    given = {"denoise": (CODES, MASK, None), "steered": (CODES, MASK, None, None), "next_digit": (None, None, None)}
    return finite_answers(network, method)(*given[method])


@pytest.mark.parametrize("method", ["denoise", "steered", "next_digit"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_logit_that_is_no_number_is_an_error(method, value):
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 1, 0, 2] = value
    count = 2 if method == "next_digit" else 6
    with pytest.raises(DiffGRMError, match=f"what Says says: 1 of {count} answers of {method} are NaN or infinite"):
        asked(Says(logits), method)


@pytest.mark.parametrize("method", ["denoise", "steered", "next_digit"])
def test_codes_out_of_question_and_known_digits_may_be_anything(method):
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 0, 1] = torch.nan  # of a known digit
    logits[..., 0] = logits[..., 0].masked_fill(MASK, -torch.inf)
    asked(Says(logits), method)


def test_a_digit_without_a_code_is_an_error():
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 1, 2] = -torch.inf
    with pytest.raises(DiffGRMError, match="1 of 6 answers of denoise"):
        asked(Says(logits), "denoise")


def test_what_another_decoder_asks_for_is_its_own_affair():
    logits = torch.full((1, 1), torch.nan)
    assert finite_answers(Says(logits), "guess")(None) is logits


def test_other_answers_are_finite():
    assert check_finite(Says(None), "pair_users", MASK) is MASK
    with pytest.raises(DiffGRMError, match="1 of 2 answers of pair_users"):
        check_finite(Says(None), "pair_users", torch.tensor([0.0, -torch.inf]))
