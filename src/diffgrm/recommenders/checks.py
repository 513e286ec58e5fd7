"""Refuses networks that cannot be trained or asked as a recipe says, and devices that are not there."""

from __future__ import annotations

import torch

from diffgrm.foundation import registry
from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DiffGRMError, RecipeError
from diffgrm.foundation.sections import RetrievalSettings
from diffgrm.networks.contracts import (
    Denoises,
    DenoisesVectors,
    EncodesHistories,
    PredictsDigits,
    ScoresItems,
    SteersDigits,
    check_network,
    lacks,
)
from diffgrm.ranking.first_stage import can_look_up
from diffgrm.semantic_ids.embeddings.base import ItemSpace
from diffgrm.semantic_ids.tokenizers.base import gives_code_vectors

HEADS = (Denoises, PredictsDigits, ScoresItems)  # what a network answers by, and must have learnt to


def check_recipe(recipe: Recipe) -> None:
    """Refuse a network that lacks what a recipe asks of it, or is asked for what no objective teaches it.

    Raises:
        RecipeError: with the way out.
    """
    objectives = [part for part in recipe.objective.with_nested() if part.kind == "objective"]
    taught = [(need, f"objective {part.name!r}") for part in objectives for need in needs_of(part)]
    who = f"the recommender {recipe.recommender!r}"
    needs: tuple[type, ...] = (ScoresItems,)
    ranks_by = needs
    if "decoding" in recipe.sections:
        who, needs = f"decoding {recipe.decoding.name!r}", needs_of(recipe.decoding)
        scores_items = registry.constant("decoding", recipe.decoding.name, "uses_item_scores", False)
        ranks_by = (ScoresItems,) if scores_items else needs
        if scores_items and "item_scoring" not in recipe.sections:
            raise RecipeError(
                f"{who} ranks by item scores, which the recommender {recipe.recommender!r} does not learn; choose "
                "recommender=hybrid, or a decoding such as any_order_beam"
            )
        if scores_items and not recipe.item_scoring.scorers:
            raise RecipeError(
                f"{who} ranks by item scores, and item_scoring has no scorer left; keep one of "
                f"{', '.join(registry.names('scorer'))}"
            )
        if scores_items and "vectors" not in recipe.item_scoring.scorers:
            ranks_by = ()  # by what needs no network
    if recipe.model.options.get("start") == "item_scorer":
        _check_start(recipe)
    _check_index(recipe)
    _check_pairs_rank(recipe)
    if recipe.model.options.get("start") == "texts":
        if recipe.recommender != "documents":
            raise RecipeError(
                "model.start=texts begins where a text is all that is asked, and the recommender "
                f"{recipe.recommender!r} is asked by histories; choose model.start=drawn, or recommender=documents"
            )
        _check_codes(recipe)
    asked = [(EncodesHistories, "training"), *taught, *((need, who) for need in needs)]
    check_network(recipe.model.name, registry.resolve("model", recipe.model.name), asked)
    for need in ranks_by:
        if need in HEADS and not any(need in protocol.__mro__ for protocol, _ in taught):
            raise RecipeError(
                f"{who} ranks by what {need.__name__} says, which the objective {recipe.objective.name!r} does not teach; "
                "choose another objective (joint: items and digits; next_item: items; diffusion, left_to_right: digits)"
            )


def _check_index(recipe: Recipe) -> None:
    """Refuse an index of item vectors beside scorers that it does not find the best items of."""
    if not {"retrieval", "item_scoring"} <= {*recipe.sections} or recipe.retrieval.index in ("auto", "exact"):
        return
    parts = recipe.item_scoring.scorers.values()
    scorers = [(registry.resolve("scorer", part.name), part.options.get("weight", 1.0)) for part in parts]
    if not can_look_up(scorers):
        raise RecipeError(
            f"retrieval.index={recipe.retrieval.index} looks items up by their vectors, but item_scoring "
            f"({', '.join(recipe.item_scoring.scorers)}) has a scorer that can only score all items, or none that compares "
            "vectors; set retrieval.index=exact, weigh item_scoring.vectors, or see item_factors of Scorer for your own"
        )


def _check_start(recipe: Recipe) -> None:
    """Refuse to begin at an item scorer where there is none, or whose vectors codes do not add up to."""
    encoder = recipe.embedding
    if not issubclass(registry.resolve("embedding", encoder.name), ItemSpace):
        raise RecipeError(
            f"model.start=item_scorer begins at an item scorer, but the embedding {encoder.name!r} is not made of one; "
            "choose embedding.name=item_scorer, or model.start=drawn"
        )
    _check_codes(recipe)


def _check_codes(recipe: Recipe) -> None:
    """Refuse to begin with codes whose vectors do not add up to those of items, or behind layers that know nothing yet."""
    tokenizer, start = recipe.tokenizer, recipe.model.options["start"]
    if not gives_code_vectors(tokenizer):
        raise RecipeError(
            f"model.start={start} needs codes whose vectors add up to those of items; the tokenizer "
            f"{tokenizer.name!r} does not give them with these settings; choose tokenizer.name=opq with "
            "tokenizer.unit=false, or model.start=drawn"
        )
    if not recipe.model.options.get("skip"):
        raise RecipeError(
            f"model.start={start} begins where digits are compared with the state of the newest item; set model.skip=true"
        )


def _check_pairs_rank(recipe: Recipe) -> None:
    """Refuse scores of pairs where there are none, and to rank without those that a network has."""
    rank = recipe.model.options.get("pairwise_rank")
    if not rank or "decoding" not in recipe.sections:
        return
    if recipe.tokenizer.options.get("n_digits") == 1 and recipe.semantic_ids.collisions != "extra_digit":
        raise RecipeError(
            f"model.pairwise_rank = {rank} scores pairs of digits, but tokenizer.n_digits is 1; set it to 2 or more, or "
            "model.pairwise_rank to 0"
        )
    for part in (recipe.decoding, recipe.validation_decoder):
        if not registry.constant("decoding", part.name, "uses_pairs", False):
            able = [name for name in registry.names("decoding") if registry.constant("decoding", name, "uses_pairs", False)]
            raise RecipeError(
                f"decoding {part.name!r} leaves out the scores of pairs of digits (model.pairwise_rank = {rank}); choose "
                f"one of {', '.join(able)}, or set model.pairwise_rank to 0"
            )


def check_all_taught(recipe: Recipe) -> None:
    """Refuse to fit what would not be used: a network's answers that nothing teaches, items that nothing ranks by, digits
    that are shown for nothing.

    It is asked before fitting only, so that a model that was fitted so can be loaded.

    Raises:
        RecipeError: with the way out.
    """
    model, objective, who = recipe.model.name, recipe.objective.name, recipe.recommender
    parts = [part for part in recipe.objective.with_nested() if part.kind == "objective"]
    taught = {protocol for part in parts for need in needs_of(part) for protocol in need.__mro__}
    for head in (Denoises, PredictsDigits, DenoisesVectors, SteersDigits):
        if head not in taught and not lacks(registry.resolve("model", model), head):
            raise RecipeError(
                f"the model {model!r} answers as {head.__name__}, which the objective {objective!r} of the recommender "
                f"{who!r} does not teach: that part of it would be fitted to nothing. Choose another model.name (sasrec "
                "scores items only), or the objective joint"
            )
    if getattr(registry.resolve("model", model), "user_head", False) and ScoresItems not in taught:
        raise RecipeError(
            f"the model {model!r} has weights for scores of items, which the objective {objective!r} does not teach; set "
            "recommender=hybrid, whose objective joint does, or a model without them (diffgrm, masked_history)"
        )
    independent = getattr(registry.resolve("model", model), "independent_digits", False)
    if independent and "noising" in recipe.sections and recipe.noising.name != "full_mask":
        raise RecipeError(
            f"the digits of the model {model!r} are independent, so that noising {recipe.noising.name!r} shows it digits "
            "for nothing; set noising.name=full_mask"
        )
    rank = recipe.model.options.get("pairwise_rank")
    if rank and not any(registry.constant("objective", part.name, "teaches_pairs", False) for part in parts):
        raise RecipeError(
            f"model.pairwise_rank = {rank} gives weights to pairs of digits, which the objective {objective!r} does not "
            "teach; choose objective.name=catalogue_diffusion, or set model.pairwise_rank to 0"
        )
    _check_scorers(recipe)
    _check_alignment(recipe)
    check_retrieval(recipe)
    if ScoresItems in taught and "decoding" in recipe.sections and "item_scoring" not in recipe.sections:
        raise RecipeError(
            f"the objective {objective!r} teaches item scores, which the recommender {who!r} does not rank by; choose "
            "recommender=hybrid, or an objective over digits only (diffusion, left_to_right)"
        )


def check_retrieval(recipe: Recipe) -> None:
    """Refuse settings of how items are looked up where they are not.

    Raises:
        RecipeError: with the way out.
    """
    looks_up = "decoding" not in recipe.sections or registry.constant("decoding", recipe.decoding.name, "looks_up", False)
    usual = RetrievalSettings()  # type: ignore[call-arg]
    if "retrieval" in recipe.sections and recipe.retrieval != usual and not looks_up:
        raise RecipeError(
            f"retrieval is for lists that item scores propose, but decoding {recipe.decoding.name!r} finds items in its "
            "own way; leave retrieval out, or choose decoding.name=item_proposals"
        )


def _check_scorers(recipe: Recipe) -> None:
    """Refuse to fit item scorers from which nothing learns."""
    scorers = recipe.embedding.options.get("scorers", 1) if "embedding" in recipe.sections else 1
    made_of_them = scorers > 1 and issubclass(registry.resolve("embedding", recipe.embedding.name), ItemSpace)
    learning = any(part.options.get("teacher_weight") for part in recipe.objective.with_nested())
    if made_of_them and not learning:
        raise RecipeError(
            f"embedding.scorers = {scorers} fits item scorers for their opinion, from which the objective "
            f"{recipe.objective.name!r} does not learn; set it to 1, or choose objective.name=catalogue_diffusion with "
            "objective.teacher_weight above 0"
        )


def _check_alignment(recipe: Recipe) -> None:
    """Refuse to align ID embeddings that no projection of texts stands beside, or to fit such a projection to nothing."""
    branches = [part.name for part in recipe.model.with_nested() if part.kind == "branch"]
    aligning = [name for name in branches if registry.constant("branch", name, "aligns_texts", False)]
    weight = recipe.objective.options.get("text_alignment", 0)
    if weight and not aligning:
        raise RecipeError(
            f"objective.text_alignment = {weight} draws ID embeddings to texts, but model.branches {branches} has "
            "none that can be; name aligned_id in place of id, or leave text_alignment out"
        )
    if aligning and not weight:
        raise RecipeError(
            f"the branch {aligning[0]!r} is drawn to texts by objective.text_alignment, which is 0 or which the objective "
            f"{recipe.objective.name!r} does not have; set it (0.1 to 0.2) with next_item or joint, or name the branch id"
        )


def usable_device(name: str, precision: str = "32") -> torch.device:
    """A torch device by its name, tried; ``"auto"`` is a GPU if there is one, else the processor.

    Raises:
        DiffGRMError: there is no such device here, it cannot compute, or an unknown precision.
    """
    if precision not in ("32", "bf16"):
        raise DiffGRMError(f"precision is {precision!r}; expected '32' or 'bf16'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        reason = str(error).split("\n")[0].split(". ")[0]
        raise DiffGRMError(
            f"the device {name!r} cannot be used here ({reason}); expected auto, cpu, or a GPU that is there, as cuda or "
            f"cuda:0 (this machine has {there} CUDA GPUs)"
        ) from error
    return device


def needs_of(part: Part) -> tuple[type, ...]:
    """What a part needs a network to be able to do."""
    return getattr(registry.resolve(part.kind, part.name), "needs", ())
