"""diffgrm: generative recommendation with masked diffusion over semantic IDs.

>>> import diffgrm
>>> diffgrm.toy_world(users=3).dataset.n_items
480
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffgrm.apps.tuning.search import TuningResult, tune
    from diffgrm.data.dataset import (
        EvaluationSet,
        InteractionDataset,
        Split,
        leave_one_out,
        validation_only,
    )
    from diffgrm.data.sources.amazon import amazon_reviews_2014, amazon_reviews_2018, amazon_reviews_2023
    from diffgrm.data.sources.lastfm import lastfm_1k
    from diffgrm.data.sources.listing import load_source
    from diffgrm.data.sources.mind import mind_small
    from diffgrm.data.sources.movielens import movielens
    from diffgrm.data.sources.retailrocket import retailrocket
    from diffgrm.data.sources.steam import steam
    from diffgrm.data.sources.yelp import yelp
    from diffgrm.data.splits import temporal
    from diffgrm.data.tables import read_table
    from diffgrm.data.toy import toy_world
    from diffgrm.evaluation.metrics import Evaluation, evaluate
    from diffgrm.evaluation.retrieval import evaluate_search
    from diffgrm.foundation.recipe import Recipe
    from diffgrm.ranking.rules import Rules, read_rules
    from diffgrm.recommenders.base import Recommender, load
    from diffgrm.recommenders.diffgrm import DiffGRMRecommender
    from diffgrm.recommenders.documents import DocumentRetriever
    from diffgrm.recommenders.hybrid import HybridRecommender
    from diffgrm.recommenders.popularity import PopularityRecommender
    from diffgrm.recommenders.random import RandomRecommender
    from diffgrm.recommenders.sasrec import SASRecRecommender
    from diffgrm.runtime_onnx import OnnxRecommender, load_onnx
    from diffgrm.runtime_onnx.export import export_onnx
    from diffgrm.semantic_ids.semantic_ids import SemanticIds

_HOME = {  # public name -> module, imported when first asked for, so that `import diffgrm` stays quick
    "EvaluationSet": "data.dataset",
    "InteractionDataset": "data.dataset",
    "Split": "data.dataset",
    "leave_one_out": "data.dataset",
    "temporal": "data.splits",
    "validation_only": "data.dataset",
    "amazon_reviews_2014": "data.sources.amazon",
    "amazon_reviews_2018": "data.sources.amazon",
    "amazon_reviews_2023": "data.sources.amazon",
    "lastfm_1k": "data.sources.lastfm",
    "load_source": "data.sources.listing",
    "mind_small": "data.sources.mind",
    "movielens": "data.sources.movielens",
    "retailrocket": "data.sources.retailrocket",
    "steam": "data.sources.steam",
    "yelp": "data.sources.yelp",
    "read_table": "data.tables",
    "toy_world": "data.toy",
    "Evaluation": "evaluation.metrics",
    "evaluate": "evaluation.metrics",
    "evaluate_search": "evaluation.retrieval",
    "export_onnx": "runtime_onnx.export",
    "OnnxRecommender": "runtime_onnx",
    "load_onnx": "runtime_onnx",
    "Recipe": "foundation.recipe",
    "Rules": "ranking.rules",
    "read_rules": "ranking.rules",
    "Recommender": "recommenders.base",
    "load": "recommenders.base",
    "DiffGRMRecommender": "recommenders.diffgrm",
    "DocumentRetriever": "recommenders.documents",
    "HybridRecommender": "recommenders.hybrid",
    "PopularityRecommender": "recommenders.popularity",
    "RandomRecommender": "recommenders.random",
    "SASRecRecommender": "recommenders.sasrec",
    "SemanticIds": "semantic_ids.semantic_ids",
    "TuningResult": "apps.tuning.search",
    "tune": "apps.tuning.search",
}
__all__ = [
    "DiffGRMRecommender",
    "DocumentRetriever",
    "Evaluation",
    "EvaluationSet",
    "HybridRecommender",
    "InteractionDataset",
    "OnnxRecommender",
    "PopularityRecommender",
    "RandomRecommender",
    "Recipe",
    "Recommender",
    "Rules",
    "SASRecRecommender",
    "SemanticIds",
    "Split",
    "TuningResult",
    "amazon_reviews_2014",
    "amazon_reviews_2018",
    "amazon_reviews_2023",
    "evaluate",
    "evaluate_search",
    "export_onnx",
    "lastfm_1k",
    "leave_one_out",
    "load",
    "load_onnx",
    "load_source",
    "mind_small",
    "movielens",
    "read_rules",
    "read_table",
    "retailrocket",
    "steam",
    "temporal",
    "toy_world",
    "tune",
    "validation_only",
    "yelp",
]

try:
    __version__ = version("diffgrm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from diffgrm.foundation.schema import needing_pytorch

        with needing_pytorch(f"diffgrm.{name}"):
            return getattr(importlib.import_module(f"diffgrm.{_HOME[name]}"), name)
    raise AttributeError(f"module 'diffgrm' has no attribute {name!r}")
