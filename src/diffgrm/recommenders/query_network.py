"""A network that is asked by queries in place of histories, as a learnt part."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import Ragged
from diffgrm.data.query_split import QuerySplit
from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DataError, RecipeError, bullet_list, first_few
from diffgrm.learning.objectives.base import Ranking, TrainingItems
from diffgrm.networks.history import HistoryNetwork
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.query_ranker import QueryRanker
from diffgrm.recommenders.parts import FitTask, part_of
from diffgrm.recommenders.rankers import Tables, item_features
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors
from diffgrm.recommenders.trained_network import TrainedNetwork
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, ItemSpace, check_embeddings
from diffgrm.semantic_ids.embeddings.precomputed import Precomputed

logger = logging.getLogger(__name__)

PLACES = {"max_len": 1, "history": "bidirectional", "positions": None}  # settings of histories, with one place in them


class QueryNetwork(TrainedNetwork):
    """The recipe's network, whose histories hold one query each.

    The vector of a query's text goes through the branch ``text`` and the history encoder's layers, which over a single
    place are layers of an MLP; the memory that they leave is the one that objectives and decoders know.
    """

    def _start(self, task: FitTask) -> None:
        """Begin where a query finds the documents of nearest text."""
        assert isinstance(self.network, HistoryNetwork)
        codes = part_of(task.parts, "sids", Identifiers).code_vectors()
        self.network.start_at_texts(torch.from_numpy(codes))

    def _events(self, task: FitTask) -> Ragged:
        return _split(task).pairs

    def _items(self, task: FitTask) -> TrainingItems:
        split, texts = _split(task), part_of(task.parts, "texts", TextVectors)
        assert texts.vectors is not None
        queries = query_vectors(texts.encoder, split.texts, split.dataset.item_table)
        check_width(queries, texts.vectors.shape[1])
        queries = np.concatenate([queries, texts.vectors]) if split.own else queries
        documents = item_features(task.parts, split.item_counts, split.dataset.n_items)
        return TrainingItems(ItemFeatures(documents.codes, trained=documents.trained), split.item_counts, queries)

    def _ranking(
        self, task: FitTask, items: TrainingItems, decoder: Decoder
    ) -> Callable[[nn.Module, ItemFeatures], Ranking]:
        tables = Tables(task.recipe, task.parts, None)

        def ranking(network: nn.Module, documents: ItemFeatures) -> Ranking:
            queries = items.queries
            assert isinstance(queries, Tensor)
            return QueryRanker.of(network, decoder, tables.catalogue(documents), queries)

        return ranking


def _split(task: FitTask) -> QuerySplit:
    assert isinstance(task.split, QuerySplit)
    return task.split


def query_vectors(encoder: ItemEncoder, queries: pl.DataFrame, documents: pl.DataFrame) -> np.ndarray:
    """[Q, e] of queries by the encoder of the documents; zero vectors, which ask for nothing, are told in a warning.

    Args:
        queries: ``item_id, text`` and more, a row a query.
        documents: whose columns the encoder may read; queries have nothing in those that are not theirs.

    Raises:
        DataError: a precomputed embedding without vectors of the queries, or vectors that are not finite.
    """
    if isinstance(encoder, Precomputed):
        vectors = encoder.of_queries(queries)
    else:
        absent = {name: kind for name, kind in documents.schema.items() if name not in queries.columns}
        rows = queries.with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in absent.items())
        vectors = check_embeddings(encoder.encode(rows), len(queries), queries[Columns.ITEM])
    zero = np.logical_not(vectors.any(axis=1))
    if zero.any():
        texts = queries.filter(zero)[Columns.TEXT]
        told = int(zero.sum()), len(zero), first_few(repr(text[:40]) for text in texts)
        logger.warning("%d of %d queries say nothing that the embedding knows, so what they find is arbitrary: %s", *told)
    return vectors


def check_width(queries: np.ndarray, width: int) -> None:
    """Make sure that queries [Q, e] have vectors as the documents have them.

    Raises:
        DataError: they have another width.
    """
    if queries.shape[1] != width:
        raise DataError(
            f"vectors of queries have {queries.shape[1]} numbers, those of documents {width}; make both with one encoder"
        )


def check_documents(recipe: Recipe) -> None:
    """Refuse settings that mean nothing where queries are asked, or that would be made of something that they lack.

    Raises:
        RecipeError: with every problem found, and the way out.
    """
    problems, model = [], recipe.model.options
    branches = [part.name for part in model.get("branches", ())]
    if branches != ["text"]:
        problems.append(
            f"a query is its text, and nothing else: set model.branches=[text], found {branches or 'a model without'}"
        )
    problems += [
        f"model.{key} = {model[key]} does nothing, since a query takes one place; set it to {usual or 'null'}"
        for key, usual in PLACES.items()
        if key in model and model[key] != usual
    ]
    embedding: type[ItemEncoder] = registry.resolve("embedding", recipe.embedding.name)
    if embedding.reads_events or issubclass(embedding, ItemSpace):
        problems.append(
            f"embedding.name = {recipe.embedding.name} learns from events of users, and there are none; choose lsa, "
            "sentence_transformer or precomputed"
        )
    indexed = recipe.documents.index_documents
    if issubclass(embedding, Precomputed) and set(indexed) - {"text"}:
        problems.append(
            f"documents.index_documents = {[*indexed]} makes texts of which a precomputed embedding has no vectors; set "
            "it to [text] or []"
        )
    if "noising" in recipe.sections and recipe.noising.options.get("hidden_first") == "rare":
        problems.append(
            "noising.hidden_first = rare goes by digits of past items, and a query has none; set it to random, or choose "
            "another noising.name"
        )
    if problems:
        raise RecipeError("the recipe has problems:\n" + bullet_list(problems))
