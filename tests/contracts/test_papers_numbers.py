"""Numbers that papers and their releases give, and that parts have unless a recipe says otherwise."""

from __future__ import annotations

import pytest

from diffgrm.foundation.parts import as_part
from diffgrm.semantic_ids.tokenizers.vq_vae import KMEANS_ITERATIONS

HEADS = {"width": 32, "hidden": (512, 256), "commitment": 0.25, "last_digit": "sinkhorn", "epsilon": 0.003, "rounds": 10}
PAPERS = {
    ("tokenizer", "mh_vqvae"): {"n_digits": 4, "codebook_size": 256, "learning_rate": 1e-3, "weight_decay": 1e-4, **HEADS},
    ("model", "rpg"): {"layers": 2, "temperature": 0.03},
    ("model", "diqdiff"): {"steps": 32, "noise_scale": 0.001, "code_temperature": 0.1, "guidance_codes": 8, "dropout": 0.3},
    ("objective", "vector_diffusion"): {"contrast_weight": 0.05, "contrast_temperature": 0.07},
    ("model", "sprint"): {"encoder_layers": 1, "decoder_layers": 4},
    ("objective", "token_contrast"): {"negatives": 100},
    ("model", "epic"): {"temperature": 0.1, "attention_temperature": 0.25},
    ("objective", "epic"): {"spread_temperature": 0.25},
    ("model", "masked_history_dense"): {"text_rank": 64},
    ("objective", "history_diffusion_dense"): {"dense_every": 10, "dense_weight": 1.0},
}


@pytest.mark.parametrize(("kind", "name"), PAPERS)
def test_the_usual_settings_are_those_of_the_paper(kind, name):
    found, wanted = as_part(kind, name).options, PAPERS[kind, name]
    assert {key: found[key] for key in wanted} == wanted


def test_codebooks_begin_with_a_hundred_rounds_of_k_means():
    assert KMEANS_ITERATIONS == 100
