"""Parts by name: ``resolve("tokenizer", "opq")`` or ``resolve("tokenizer", "my_lab.my_module:MyTokenizer")``.

The table below holds strings only, so listing names imports nothing; settings and constants are read off the source of a
part's module, which is imported only to build the part. A part's settings are the keyword arguments of its constructor;
write each as ``Annotated[type, "what it does"]`` and the recipe checks, converts and explains it. Arguments that the caller
supplies (``n_digits``, ``seed``...) carry no text.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffgrm.foundation.part_settings import NotInSource, Setting, constant_of_source, settings_of_class, settings_of_source
from diffgrm.foundation.schema import DiffGRMError, RecipeError, did_you_mean, needing_pytorch

PARTS: dict[str, dict[str, str]] = {
    "embedding": {
        "lsa": "diffgrm.semantic_ids.embeddings.lsa:LSA",
        "sentence_transformer": "diffgrm.semantic_ids.embeddings.sentence_transformer:SentenceTransformer",
        "universal_sentence_encoder": (
            "diffgrm.semantic_ids.embeddings.universal_sentence_encoder:UniversalSentenceEncoder"
        ),
        "precomputed": "diffgrm.semantic_ids.embeddings.precomputed:Precomputed",
        "text_and_events": "diffgrm.semantic_ids.embeddings.text_and_events:TextAndEvents",
        "item_scorer": "diffgrm.recommenders.item_scorer:ItemScorerVectors",
    },
    "tokenizer": {
        "opq": "diffgrm.semantic_ids.tokenizers.opq:OPQTokenizer",
        "residual_kmeans": "diffgrm.semantic_ids.tokenizers.residual_kmeans:ResidualKMeansTokenizer",
        "mh_vqvae": "diffgrm.semantic_ids.tokenizers.vq_vae:MultiHeadVQVAE",
        "rq_vae": "diffgrm.semantic_ids.tokenizers.vq_vae:ResidualVQVAE",
        "simhash": "diffgrm.semantic_ids.tokenizers.simhash:SimHashTokenizer",
        "random": "diffgrm.semantic_ids.tokenizers.random:RandomTokenizer",
        "from_file": "diffgrm.semantic_ids.tokenizers.from_file:FromFileTokenizer",
    },
    "model": {
        "diffgrm": "diffgrm.networks.diffgrm:DiffGRM",
        "autoregressive": "diffgrm.networks.autoregressive:Autoregressive",
        "masked_history": "diffgrm.networks.masked_history:MaskedHistory",
        "masked_history_dense": "diffgrm.networks.masked_history_dense:MaskedHistoryDense",
        "epic": "diffgrm.networks.epic:Epic",
        "rpg": "diffgrm.networks.rpg:RPG",
        "sprint": "diffgrm.networks.sprint:Sprint",
        "sasrec": "diffgrm.networks.sasrec:SASRec",
        "diqdiff": "diffgrm.networks.diqdiff:DiQDiff",
        "h2rec": "diffgrm.networks.h2rec:H2Rec",
        "item_knn": "diffgrm.ranking.neighbours:ItemKNN",
        "text_knn": "diffgrm.ranking.neighbours:TextKNN",
        "transition_graph": "diffgrm.ranking.transition_graph:TransitionGraph",
        "score_fusion": "diffgrm.ranking.score_fusion:ScoreFusion",
    },
    "branch": {
        "sid": "diffgrm.networks.item_vectors:SidBranch",
        "text": "diffgrm.networks.item_vectors:TextBranch",
        "id": "diffgrm.networks.item_vectors:IdBranch",
        "aligned_id": "diffgrm.networks.aligned_ids:AlignedIdBranch",
    },
    "objective": {
        "diffusion": "diffgrm.learning.objectives.diffusion:DiffusionObjective",
        "history_diffusion": "diffgrm.learning.objectives.history:HistoryDiffusionObjective",
        "history_diffusion_dense": "diffgrm.learning.objectives.history_dense:HistoryDiffusionDenseObjective",
        "catalogue_diffusion": "diffgrm.learning.objectives.catalogue:CatalogueDiffusionObjective",
        "epic": "diffgrm.learning.objectives.epic:EpicObjective",
        "token_contrast": "diffgrm.learning.objectives.token_contrast:TokenContrastObjective",
        "left_to_right": "diffgrm.learning.objectives.left_to_right:LeftToRightObjective",
        "next_item": "diffgrm.learning.objectives.next_item:NextItemObjective",
        "vector_diffusion": "diffgrm.learning.objectives.vector_diffusion:VectorDiffusionObjective",
        "aligned_next_item": "diffgrm.learning.objectives.aligned_next_item:AlignedNextItemObjective",
        "joint": "diffgrm.learning.objectives.joint:JointObjective",
    },
    "noising": {
        "confidence": "diffgrm.learning.noising.confidence:ConfidenceNoising",
        "coherent": "diffgrm.learning.noising.coherent:CoherentNoising",
        "random": "diffgrm.learning.noising.uniform:RandomNoising",
        "curriculum": "diffgrm.learning.noising.curriculum:CurriculumNoising",
        "full_mask": "diffgrm.learning.noising.full_mask:FullMaskNoising",
    },
    "scorer": {
        "vectors": "diffgrm.ranking.item_scoring.vectors:VectorScorer",
        "co_occurrence": "diffgrm.ranking.item_scoring.co_occurrence:CoOccurrenceScorer",
        "new_items": "diffgrm.ranking.item_scoring.new_items:NewItemScorer",
    },
    "decoding": {
        "any_order_beam": "diffgrm.ranking.decoding.any_order_beam:AnyOrderBeam",
        "catalogue_beam": "diffgrm.ranking.decoding.catalogue_beam:CatalogueBeam",
        "item_posterior": "diffgrm.ranking.decoding.item_posterior:ItemPosterior",
        "learnt_item_posterior": "diffgrm.ranking.decoding.learnt_item_posterior:LearntItemPosterior",
        "item_proposals": "diffgrm.ranking.decoding.item_proposals:ItemProposals",
        "digits_and_items": "diffgrm.ranking.decoding.digits_and_items:DigitsAndItems",
        "one_pass": "diffgrm.ranking.decoding.one_pass:OnePass",
        "independent_groups": "diffgrm.ranking.decoding.independent_groups:IndependentGroups",
        "item_graph": "diffgrm.ranking.decoding.item_graph:ItemGraph",
        "refined": "diffgrm.ranking.decoding.refined:Refined",
        "left_to_right": "diffgrm.ranking.decoding.left_to_right:LeftToRight",
        "exhaustive": "diffgrm.ranking.decoding.exhaustive:Exhaustive",
    },
    "recommender": {
        "hybrid": "diffgrm.recommenders.hybrid:HybridRecommender",
        "diffgrm": "diffgrm.recommenders.diffgrm:DiffGRMRecommender",
        "epic": "diffgrm.recommenders.epic:EpicRecommender",
        "autoregressive": "diffgrm.recommenders.autoregressive:AutoregressiveRecommender",
        "one_pass": "diffgrm.recommenders.one_pass:OnePassRecommender",
        "sasrec": "diffgrm.recommenders.sasrec:SASRecRecommender",
        "sid_sasrec": "diffgrm.recommenders.sasrec:SidSASRecRecommender",
        "item_knn": "diffgrm.recommenders.neighbours:ItemKNNRecommender",
        "text_knn": "diffgrm.recommenders.neighbours:TextKNNRecommender",
        "transition_graph": "diffgrm.recommenders.transition_graph:TransitionGraphRecommender",
        "ensemble": "diffgrm.recommenders.ensemble:EnsembleRecommender",
        "popularity": "diffgrm.recommenders.popularity:PopularityRecommender",
        "random": "diffgrm.recommenders.random:RandomRecommender",
    },
    "retriever": {
        "documents": "diffgrm.recommenders.documents:DocumentRetriever",
    },
}

BASES = {  # what classes of one's own derive from
    "embedding": "diffgrm.semantic_ids.embeddings.base:ItemEncoder",
    "tokenizer": "diffgrm.semantic_ids.tokenizers.base:Tokenizer",
    "model": "torch.nn:Module",
    "branch": "diffgrm.networks.item_vectors:Branch",
    "objective": "diffgrm.learning.objectives.base:Objective",
    "noising": "diffgrm.learning.noising.base:NoisingSchedule",
    "scorer": "diffgrm.ranking.item_scoring.base:Scorer",
    "decoding": "diffgrm.ranking.decoding.base:Decoder",
    "recommender": "diffgrm.recommenders.base:Recommender",
    "retriever": "diffgrm.recommenders.documents:DocumentRetriever",
}

Trust = bool | Collection[str]  # True: any code, False: none but ours; or the classes of others, as ``module:Class``
_GUARD: ContextVar[Guard | None] = ContextVar("guard", default=None)


class Guard:
    """What may be imported while somebody else's settings are read.

    Attributes:
        trusted: classes of others, as ``module:Class``, that may be imported.
        refused: those that were asked for and may not, each with its kind.
    """

    def __init__(self, trusted: Collection[str]) -> None:
        self.trusted, self.refused = trusted, list[str]()

    def check(self, kind: str, name: str) -> None:
        """Refuse a name that is neither registered nor trusted.

        Raises:
            RecipeError: it is neither.
        """
        if name not in PARTS[kind] and name not in self.trusted:
            self.refused.append(f"{name} ({kind})")
            raise RecipeError(f"the {kind} {name!r} is none of diffgrm's own, and its code is not trusted")


@contextmanager
def guarded(trusted: Trust) -> Iterator[list[str]]:
    """Inside the block, parts that are neither registered nor trusted are refused before anything of them is imported.

    Args:
        trusted: classes of others, as ``module:Class``, that may be imported, or one of them; True: all, False: none.

    Yields:
        Those that were refused.
    """
    guard = Guard(() if isinstance(trusted, bool) else (trusted,) if isinstance(trusted, str) else trusted)
    token = _GUARD.set(None if trusted is True else guard)
    try:
        yield guard.refused
    finally:
        _GUARD.reset(token)


def trust() -> Trust:
    """Whose code may be imported here: what the innermost :func:`guarded` block says, outside of any that of all."""
    guard = _GUARD.get()
    return True if guard is None else guard.trusted


def names(kind: str) -> list[str]:
    """Registered names of a kind of part, in order of registration."""
    return list(PARTS[kind])


def is_name(name: str) -> bool:
    """Whether a part of any kind may be called so: a registered name, or ``module:Class``."""
    return ":" in name or any(name in parts for parts in PARTS.values())


def door(name: str) -> str:
    """The kind of what a whole recipe is for: a recommender, or a retriever."""
    return "retriever" if name in PARTS["retriever"] else "recommender"


def path_of(kind: str, name: str) -> tuple[str, str]:
    """Module and class behind a registered name or a ``module:Class`` path.

    Raises:
        RecipeError: unknown name, or one that may not be imported here (:func:`guarded`).
    """
    if (guard := _GUARD.get()) is not None:
        guard.check(kind, name)
    module, _, class_name = PARTS[kind].get(name, name).partition(":")
    if not class_name:
        other = next((other for other in PARTS if name in PARTS[other]), None)
        hint = did_you_mean(name, PARTS[kind]) if other is None else f"; it is the name of a part of the kind {other!r}"
        raise RecipeError(f"unknown {kind} {name!r}{hint} (or give your own class as 'module:Class')")
    if not all(word.isidentifier() for word in (*module.split("."), class_name)):
        raise RecipeError(f"{kind} {name!r} is no class of one's own; write 'module:Class', such as 'my_lab.parts:Mine'")
    return module, class_name


def resolve(kind: str, name: str) -> type:
    """The class behind a registered name or a ``module:Class`` path.

    Raises:
        RecipeError: unknown name, module that cannot be imported, or what is no class of that kind.
        MissingExtraError: it needs PyTorch, which is not installed.
    """
    found = _imported(kind, name)
    if name not in PARTS[kind]:
        home, _, base = BASES[kind].partition(":")
        if not isinstance(found, type) or not issubclass(found, getattr(importlib.import_module(home), base)):
            raise RecipeError(f"{name!r} is no {kind}; write a class that derives from {home}.{base}")
    return found


def _imported(kind: str, name: str) -> Any:
    """What stands under a registered name or a ``module:Class`` path, whatever it is."""
    module_name, class_name = path_of(kind, name)
    try:
        with needing_pytorch(f"the {kind} {name!r}"):
            module = importlib.import_module(module_name)
    except DiffGRMError:
        raise
    except Exception as error:  # whatever somebody's module does
        if name in PARTS[kind]:
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise RecipeError(f"{kind} {name!r}: there is no module {missing!r} to import") from error
        where = f"{type(error).__name__} in {_place(error, module_name)}"
        raise RecipeError(f"{kind} {name!r}: importing {module_name} fails: {where}: {error}") from error
    if not hasattr(module, class_name):
        raise RecipeError(f"{kind} {name!r}: module {module_name!r} has no class {class_name!r}")
    return getattr(module, class_name)


def _place(error: Exception, module_name: str) -> str:
    """Where a module failed: in its own file, as deep as that goes, else wherever it was."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    ending = f"{module_name.rpartition('.')[2]}.py"
    own = [frame for frame in frames if Path(frame.filename).name == ending] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}"


def settings(kind: str, name: str) -> Mapping[str, Setting]:
    """The settings of a part: its constructor's ``Annotated[..., "text"]`` arguments.

    Raises:
        RecipeError: see :func:`resolve`.
    """
    path_of(kind, name)  # what may not be imported here is refused, though it may have been asked for before
    return _settings(kind, name)


@lru_cache
def _settings(kind: str, name: str) -> Mapping[str, Setting]:
    try:
        return settings_of_source(*path_of(kind, name))
    except NotInSource:
        found = _imported(kind, name)
    try:
        return settings_of_class(found)
    except (AttributeError, NameError, TypeError, ValueError) as error:
        raise RecipeError(f"{kind} {name!r}: no settings can be read off it: {error}") from error


def constant(kind: str, name: str, constant: str, default: Any) -> Any:
    """A constant of a part's class, such as the ``sections`` of a recipe that it uses.

    Args:
        default: given back where the class has no such constant; hashable.

    Raises:
        RecipeError: see :func:`resolve`.
    """
    path_of(kind, name)
    return _constant(kind, name, constant, default)


@lru_cache
def _constant(kind: str, name: str, constant: str, default: Any) -> Any:
    try:
        return constant_of_source(*path_of(kind, name), constant)
    except KeyError:
        return default
    except NotInSource:
        return getattr(_imported(kind, name), constant, default)
