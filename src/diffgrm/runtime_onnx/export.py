"""A recommender as a folder that is used without PyTorch: two graphs, and what else its lists are made of."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.foundation import model_folder, registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.saved_tables import write_table
from diffgrm.foundation.schema import Columns, MissingExtraError, RecipeError, bullet_list
from diffgrm.foundation.storage import State
from diffgrm.networks.contracts import DenoisesPlaces, EncodesHistories, ScoresItems, contract, lacks
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.card import model_card
from diffgrm.recommenders.item_catalogue import COUNT, ITEMS, RECOMMENDABLE
from diffgrm.recommenders.parts import part_of
from diffgrm.recommenders.rankers import Tables, item_features
from diffgrm.recommenders.saving import RECIPE
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import SIDS, Identifiers
from diffgrm.recommenders.trained_network import network_of
from diffgrm.recommenders.user_profiles import user_parts
from diffgrm.runtime_onnx.graphs import Told, check_graphs, write_graphs
from diffgrm.runtime_onnx.recommender import COMPARABLE, ITEM_VECTORS, PAIRS, VECTORS

# What the NumPy decoders of diffgrm.runtime_onnx do; steps may also be the number of digits.
DECODING: dict[str, dict[str, tuple[Any, ...]]] = {
    "any_order_beam": {
        "steps": (None,),
        "threshold": (None,),
        "order": ("confidence", "fixed"),
        "merge": ("best_path",),
        "constrained": (True,),
        "finish": ("digits",),
    },
    "item_proposals": {},
    "one_pass": {},
}


def export_onnx(recommender: Recommender, folder: str | Path) -> Path:
    """Write a folder that :func:`diffgrm.load_onnx` reads, whole or not at all; an older export there is replaced.

    The decoding settings of the recommender's recipe are kept with it.

    Raises:
        RecipeError: a recommender or a way of decoding that cannot be exported.
        ModelFolderError: the place is taken by something else, or writing failed (nothing is lost then).
        MissingExtraError: the packages that write ONNX are not installed.
    """
    folder = Path(folder)
    ranker = _ranker_of(recommender)
    _check_installed()
    model_folder.check_target(folder, model_folder.EXPORT)
    recipe, catalogue = recommender.recipe.portable(), recommender.catalogue
    network = contract(ranker.network, EncodesHistories)
    settings = {"max_len": network.max_len, "causal": network.causal}
    told, more = Told.of(recipe.events), _asked_of_encoder(recipe, ranker.items)
    facts = {"recommender": recipe.recommender, "facts": recommender.facts, "onnx": settings}
    with model_folder.writing(folder, facts, model_folder.EXPORT) as new:
        write_graphs(ranker.items, new, more, told)
        check_graphs(ranker.items, new, more, told)
        vectors = {VECTORS: ranker.items.vectors.numpy()}
        if (pairs := ranker.items.pair_vectors) is not None:
            vectors[PAIRS] = pairs.numpy()
        if ranker.scoring is not None:
            part_of(recommender.parts, "scorers", ItemScorers).save(new)
            if ranker.items.comparable is not ranker.items.vectors:
                vectors[COMPARABLE] = ranker.items.comparable.numpy()
        State(vectors).save(new / ITEM_VECTORS)
        for part in user_parts(recipe):
            recommender.parts[part].save(new)
        part_of(recommender.parts, "sids", Identifiers).semantic_ids.save(new / SIDS)
        rows = catalogue.table.drop(Columns.TEXT).with_columns(pl.Series(RECOMMENDABLE, recommender.recommendable))
        lifted = recipe.decoding.name == "one_pass"
        write_table(rows.with_columns(pl.Series(COUNT, catalogue.counts)) if lifted else rows, new / ITEMS)
        (new / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        name = f"{type(recommender).__name__} as ONNX"
        card = model_card(name, recommender.facts, recipe, catalogue.ids.ids([0])[0], reader="load_onnx")
        (new / "README.md").write_text(card, encoding="utf-8")
    return folder


def _asked_of_encoder(recipe: Recipe, items: ItemTable) -> tuple[str, ...]:
    """What else than keys, values and users' vectors the encoder is asked for, in order."""
    asked = {"newest": bool(recipe.model.options.get("skip")), "pairs": items.pair_vectors is not None}
    return tuple(name for name, wanted in asked.items() if wanted)


def _ranker_of(recommender: Recommender) -> Ranker:
    """What ranks for a recommender, on the CPU and in 32 bits.

    Raises:
        RecipeError: with all that stands in the way of an export.
        DiffGRMError: not fitted.
    """
    recipe = recommender.recipe
    _check_method(recipe)
    catalogue, parts = recommender.catalogue, recommender.parts
    learnt = network_of(parts)
    _check_decoding(recipe, learnt.sizes["n_digits"])
    network = copy.deepcopy(learnt.network).cpu().eval()
    features = item_features(parts, catalogue.counts, learnt.sizes["n_items"])
    decoder = recipe.decoding.build(seed=recipe.seed)
    return Tables(recipe, parts, catalogue.recommendable).ranker(network, features, decoder)


def _check_method(recipe: Recipe) -> None:
    """Refuse methods without a network that can be exported, or without semantic IDs.

    Raises:
        RecipeError: with all that stands in the way.
    """
    problems = []
    if "model" not in recipe.sections:
        problems.append("it has no network")
    else:
        name = recipe.model.name
        network = registry.resolve("model", name)
        missing = sorted({method for need in (DenoisesPlaces, ScoresItems) for method in lacks(network, need)})
        if missing:
            problems.append(f"its model {name!r} lacks {', '.join(missing)}; model.name=diffgrm has them")
    if "semantic_ids" not in recipe.sections:
        problems.append("it has no semantic IDs")
    if problems:
        raise RecipeError(
            f"the recommender {recipe.recommender!r} cannot be exported to ONNX, as 'diffgrm' and 'hybrid' can:\n"
            f"{bullet_list(problems)}"
        )


def _check_decoding(recipe: Recipe, n_digits: int) -> None:
    """Refuse ways of decoding that the ONNX runtime does not have.

    Raises:
        RecipeError: with all that stands in the way.
    """
    name, options, problems = recipe.decoding.name, recipe.decoding.options, []
    if name not in DECODING:
        names = " or ".join(f"decoding.name={name}" for name in DECODING)
        problems.append(f"expected {names}, found {name}")
    for setting, expected in DECODING.get(name, {}).items():
        found = options[setting]
        if found not in expected and not (setting == "steps" and found == n_digits):
            choices = " or ".join(f"decoding.{setting}={_yaml(value)}" for value in expected)
            problems.append(f"expected {choices}, found {_yaml(found)}")
    if problems:
        raise RecipeError(
            f"this way of decoding has no ONNX runtime; change it for the export with overrides:\n{bullet_list(problems)}"
        )


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_installed() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx", "diffgrm export") from error
