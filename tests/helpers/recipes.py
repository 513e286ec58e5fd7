"""Recipes that fit in seconds."""

from __future__ import annotations

from typing import Any

from diffgrm import Recipe
from diffgrm.foundation.registry import names, resolve, settings
from diffgrm.recommenders.base import Recommender

SIZES = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 64, "max_len": 8}
TINY: dict[str, Any] = {  # the paper's method: digits only
    "recommender": "diffgrm",
    "embedding": {"name": "lsa", "width": 32},
    "tokenizer": {"name": "opq", "n_digits": 3, "codebook_size": 16, "iterations": 5},
    "model": SIZES,
    "training": {
        "batch_size": 64,
        "epochs": 3,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "validation_decoding": {"beam": 8},
    },
    "decoding": {"name": "any_order_beam", "beam": 16},
}

SMALL_STEERING: dict[str, Any] = {  # a backbone that is fitted first, and what steers it
    "backbone": {**TINY, "training": TINY["training"] | {"epochs": 1}},
    "width": 16,
    "candidates": 32,
}
SMALL_MEMBERS: list[dict[str, Any]] = [  # of an ensemble, each by a recipe that is fitted first
    {
        "recommender": "sasrec",
        "embedding": TINY["embedding"],
        "model": {"branches": ["text", "id"], "width": 32, "layers": 1, "feed_forward": 64, "max_len": 8},
        "training": {key: value for key, value in TINY["training"].items() if key != "validation_decoding"},
    },
    {"recommender": "text_knn", "embedding": TINY["embedding"]},
]


SMALL_STREAM = (
    "embedding.width=32",
    "tokenizer.n_digits=3",
    "tokenizer.codebook_size=32",
    "tokenizer.iterations=5",
    "model.width=32",
    "model.heads=2",
    "model.layers=1",
    "model.feed_forward=64",
    "model.max_len=8",
    "training.batch_size=64",
    "training.epochs=2",
    "training.validate_every=1",
    "training.learning_rate=0.01",
    "training.warmup_steps=5",
    "training.validation_decoding.beam=8",
    "decoding.beam=16",
)
SMALL_VECTORS = (
    "model.width=32",
    "model.heads=2",
    "model.layers=1",
    "model.feed_forward=64",
    "model.max_len=8",
    "model.steps=4",
    "model.noise_scale=0.1",
    "training.batch_size=64",
    "training.epochs=3",
    "training.learning_rate=0.01",
    "training.warmup_steps=5",
)
SMALL_SIDES = (
    *SMALL_STREAM[:-2],
    "item_loss.negatives=32",
)
SMALL_DIGITS = (
    "embedding.width=32",
    "tokenizer.n_digits=4",
    "tokenizer.codebook_size=16",
    "tokenizer.iterations=5",
    "model.width=32",
    "model.feed_forward=64",
    "model.max_len=8",
    "training.epochs=2",
    "training.batch_size=64",
    "training.warmup_steps=5",
    "training.learning_rate=0.01",
)
SMALL_DENSE = (*SMALL_STREAM[:-2], "model.text_rank=8", "objective.dense_every=2")
SMALL_PRESETS = {  # other methods than those that recommenders stand for
    "maskgr": SMALL_STREAM,
    "maskgr-dense": SMALL_DENSE,
    "llada-rec": SMALL_STREAM,
    "diqdiff": SMALL_VECTORS,
    "h2rec": SMALL_SIDES,
    "rpg": (*SMALL_DIGITS, "decoding.edges=30"),
    "mdgr": (*SMALL_DIGITS, "decoding.beam=16"),
    "sprint": (*SMALL_DIGITS, "model.decoder_layers=1"),
}


def methods() -> list[str]:
    """Every recommender, and the shipped recipes of other methods: names that :func:`small_recipe` takes."""
    return [*names("recommender"), *SMALL_PRESETS]


def unfitted(name: str) -> Recommender:
    """A recommender of one of the methods, small."""
    recipe = small_recipe(name)
    return resolve("recommender", recipe.recommender)(recipe)


def small_recipe(name: str) -> Recipe:
    """A recipe for any method that fits in seconds: its own settings, with those of the tiny ones that it knows."""
    if name in SMALL_PRESETS:
        return Recipe.preset(name, SMALL_PRESETS[name])
    plain = Recipe(recommender=name)
    raw: dict[str, Any] = {"recommender": name}
    for section in set(TINY) & set(plain.sections) - {"recommender"}:
        raw[section] = dict(TINY[section])
        if section in ("model", "decoding"):
            part = getattr(plain, section)
            raw[section] = {key: value for key, value in TINY[section].items() if key in settings(section, part.name)}
    if name == "ensemble":
        raw["model"] = {"members": SMALL_MEMBERS}
    if name == "epic":
        raw["model"] = SMALL_STEERING
    if "beam" not in raw.get("decoding", {}):
        raw.get("training", {}).pop("validation_decoding", None)
    return Recipe.from_dict(raw)


# An item scorer that is fitted first (embedding.changes), and a recipe whose network begins where it stands.
SMALL_SCORER = (
    "embedding.width=16",
    "model.width=16",
    "model.layers=1",
    "model.feed_forward=32",
    "item_loss.negatives=32",
    "training.epochs=2",
    "training.validate_every=1",
    "training.batch_size=64",
    "training.learning_rate=0.01",
)
SMALL_GENERATION = (
    f"embedding.changes=[{', '.join(SMALL_SCORER)}]",
    "embedding.scorers=1",
    "tokenizer.n_digits=4",
    "tokenizer.codebook_size=16",
    "tokenizer.iterations=5",
    "model.width=16",
    "model.encoder_layers=1",
    "model.feed_forward=32",
    "item_loss.negatives=32",
    "training.epochs=2",
    "training.validate_every=1",
    "training.batch_size=64",
)


def small_generation(*changes: str) -> Recipe:
    """The shipped recipe that ranks best by generation, in seconds."""
    return Recipe.preset("generative-best", SMALL_GENERATION).override(changes)
