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
    from diffgrm.data.dataset import (
        EvaluationSet,
        InteractionDataset,
        Split,
        leave_one_out,
        validation_only,
    )
    from diffgrm.data.sources import amazon_reviews_2014, movielens
    from diffgrm.data.splits import temporal
    from diffgrm.data.tables import read_table
    from diffgrm.data.toy import toy_world
    from diffgrm.evaluation.metrics import Evaluation, evaluate
    from diffgrm.evaluation.retrieval import evaluate_search
    from diffgrm.foundation.recipe import Recipe
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
    "amazon_reviews_2014": "data.sources",
    "movielens": "data.sources",
    "read_table": "data.tables",
    "toy_world": "data.toy",
    "Evaluation": "evaluation.metrics",
    "evaluate": "evaluation.metrics",
    "evaluate_search": "evaluation.retrieval",
    "export_onnx": "runtime_onnx.export",
    "OnnxRecommender": "runtime_onnx",
    "load_onnx": "runtime_onnx",
    "Recipe": "foundation.recipe",
    "Recommender": "recommenders.base",
    "load": "recommenders.base",
    "DiffGRMRecommender": "recommenders.diffgrm",
    "DocumentRetriever": "recommenders.documents",
    "HybridRecommender": "recommenders.hybrid",
    "PopularityRecommender": "recommenders.popularity",
    "RandomRecommender": "recommenders.random",
    "SASRecRecommender": "recommenders.sasrec",
    "SemanticIds": "semantic_ids.semantic_ids",
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
    "SASRecRecommender",
    "SemanticIds",
    "Split",
    "amazon_reviews_2014",
    "evaluate",
    "evaluate_search",
    "export_onnx",
    "leave_one_out",
    "load",
    "load_onnx",
    "movielens",
    "read_table",
    "temporal",
    "toy_world",
    "validation_only",
]

try:
    __version__ = version("diffgrm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"diffgrm.{_HOME[name]}"), name)
    raise AttributeError(f"module 'diffgrm' has no attribute {name!r}")
