"""DocumentRetriever: documents found by queries, through semantic IDs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
import torch

from diffgrm.data.documents import JudgedQueries, as_items, asked_queries, open_tables, ordered, read_documents
from diffgrm.data.ids import IdMap
from diffgrm.data.query_sketch import QuerySketch
from diffgrm.data.query_split import QuerySplit
from diffgrm.foundation import model_folder, registry
from diffgrm.foundation.after_fit import changed_after_fit
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import Columns, DataError, DiffGRMError, RecipeError
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.explaining import filled_digits, searched
from diffgrm.ranking.query_ranker import QueryRanker
from diffgrm.recommenders import fitting, saving
from diffgrm.recommenders.answers import answer_table, beams_table, check_k, explanation_table
from diffgrm.recommenders.checks import check_recipe, usable_device
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import LearntPart, part_of
from diffgrm.recommenders.query_network import QueryNetwork, check_documents, check_width, query_vectors
from diffgrm.recommenders.rankers import Tables, item_features
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors
from diffgrm.semantic_ids.semantic_ids import SemanticIds, TokenizerReport

EXAMPLE = (
    "import diffgrm",
    "",
    'retriever = diffgrm.DocumentRetriever.load("THIS_FOLDER")',
    'retriever.search("what is asked", k=10)  # query_id, doc_id, score, rank',
)


class DocumentRetriever:
    """Generative retrieval by masked diffusion over semantic IDs, after DiffuGR (arXiv 2511.08150).

    Documents get semantic IDs as items do. A network encodes the vector of a query's text and denoises the digits of the
    document that answers it, in several steps or in one pass, by the objectives, decoders and the catalogue's constraint
    that recommenders have. Beside queries, documents themselves are asked with in training (``documents.index_documents``).

    Otherwise than the paper: queries and documents are vectors of an encoder and not tokens of a language model, and the
    search is a beam that ends in documents only.

    Args:
        recipe: settings, with ``recommender: documents``; None is the defaults (the recipe ``diffugr``).

    Attributes:
        parts: what is learnt, by name; facts: what the model card tells of the fit.

    Raises:
        RecipeError: the recipe is for something else, or has settings that do not go with queries.
    """

    sections: ClassVar[tuple[str, ...]] = (
        "embedding",
        "tokenizer",
        "semantic_ids",
        "model",
        "objective",
        "training",
        "decoding",
        "documents",
    )

    def __init__(self, recipe: Recipe | None = None) -> None:
        self.recipe = recipe or Recipe(recommender="documents")
        if self.recipe.recommender != "documents":
            raise RecipeError(
                f"the recipe is for the recommender {self.recipe.recommender!r}, not for documents; write recommender: "
                "documents, or start from the recipe diffugr"
            )
        self.parts: dict[str, LearntPart] = {}
        self.facts: dict[str, Any] = {}
        self._catalogue: ItemCatalogue | None = None
        self._tables: Catalogue | None = None  # of all documents, by their codes, once somebody searches

    def new_parts(self) -> dict[str, LearntPart]:
        """What is learnt, not yet fitted: vectors of texts, semantic IDs, the network."""
        recipe = self.recipe
        check_documents(recipe)
        check_recipe(recipe)
        checks = [part.build(seed=recipe.seed).check for part in (recipe.decoding, recipe.validation_decoder)]
        if "noising" in recipe.sections:
            checks.append(recipe.noising.build(seed=recipe.seed).check)
        return {"texts": TextVectors(kept=True), "sids": Identifiers(checks), "network": QueryNetwork()}

    def fit(
        self,
        documents: Any,
        queries: Any,
        qrels: Any,
        *,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
        run_folder: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> Self:
        """Learn from queries and the documents that answer them; a share of the queries is held out to choose by.

        Args:
            documents: a table (path or frame) of doc_id, text and perhaps title.
            queries: a table of query_id, text and perhaps split.
            qrels: a table of query_id, doc_id and perhaps relevance (above 0: relevant).
            split: only the queries whose column ``split`` holds this; None: all.
            columns: how columns are called in the tables, for example ``{"doc_id": "pid"}``.
            run_folder: where checkpoints and logs go; None is a temporary folder.
            resume: go on from the last checkpoint in ``run_folder``.
            progress: show progress bars.

        Raises:
            DataError: tables that cannot be used, or too little to learn from.
            RecipeError: settings that do nothing beside the others, or parts that do not go together.
        """
        self.recipe.refuse_idle()
        self._catalogue, self.parts, self._tables = None, {}, None  # until all has gone well
        documents, queries, qrels = open_tables(documents, queries, qrels, columns)
        recipe, parts, table = self.recipe, self.new_parts(), read_documents(documents, columns)
        ids = IdMap(ordered(table)[0][Columns.DOCUMENT])
        judged = JudgedQueries.from_tables(queries, qrels, ids, split, columns).answerable()
        chosen = recipe.documents
        learnt = fitting.learn_from(
            QuerySplit.of(table, judged, chosen.index_documents, chosen.validation_share, recipe.seed),
            recipe,
            parts,
            Path(run_folder) if run_folder is not None else None,
            resume,
            progress,
        )
        told = {"asked_in_fit": QuerySketch.of(judged.table[Columns.TEXT]).to_dict()}
        self.take(parts, learnt.catalogue, learnt.facts | told)
        return self

    # ---- what has been learnt -----------------------------------------------------------------------------------

    @property
    def catalogue(self) -> ItemCatalogue:
        """The documents, as items.

        Raises:
            DiffGRMError: not fitted.
        """
        if self._catalogue is None:
            raise DiffGRMError("this DocumentRetriever is not fitted: call fit(documents, queries, qrels) or load(folder)")
        return self._catalogue

    @property
    def documents(self) -> IdMap:
        """Document ids and their positions."""
        return self.catalogue.ids

    @property
    def asked_in_fit(self) -> QuerySketch | None:
        """The queries that it learnt from or was chosen by; None: an earlier version of diffgrm fitted it."""
        found = self.facts.get("asked_in_fit")
        return None if found is None else QuerySketch.from_dict(found)

    @property
    def semantic_ids(self) -> SemanticIds:
        """Of all documents."""
        return part_of(self.parts, "sids", Identifiers).semantic_ids

    @property
    def report(self) -> TokenizerReport | None:
        """On the health of the semantic IDs, after fit."""
        return part_of(self.parts, "sids", Identifiers).report

    @property
    def network(self) -> torch.nn.Module:
        """The trained network, in 32 bits."""
        return part_of(self.parts, "network", QueryNetwork).network

    # ---- search -------------------------------------------------------------------------------------------------

    def search(self, queries: Any, k: int = 10, *, progress: Callable[[int], None] | None = None) -> pl.DataFrame:
        """The k documents that answer each query best.

        Args:
            queries: a text; a list of texts, which are numbered from 0; or a table (a ``Path`` or a frame) of query_id and
                text, with the queries' vectors where the embedding is precomputed.
            progress: called with the number of queries done since the last call.

        Returns:
            query_id, doc_id, score (log-probability), rank (from 1), best first.

        Raises:
            DataError: k out of range, or unusable queries.
        """
        documents = self.documents
        check_k(k, len(documents), "documents")
        table = asked_queries(queries)
        positions, scores = self._ranker(as_items(table)).rank_all(k, progress)
        return search_table(table[Columns.QUERY], documents, positions, scores)

    def explain(self, query: Any, k: int = 5) -> pl.DataFrame:
        """How the k best documents of one query were found: which digit was filled when, and how sure the network was.

        Args:
            query: a text, or a table of one query where the embedding is precomputed; see :meth:`search`.

        Returns:
            rank, doc_id, step (from 1), digit, code (both from 0), confidence (probability of the code, given what was
            known before the step, by what the decoder goes by), rival and rival_confidence (the likeliest other code),
            items_left (documents that fit what is known after the step). Digits of one step are in order of confidence,
            and ``items_left`` counts them together.

        Raises:
            DataError: k out of range, an unusable query, or more than one.
            DiffGRMError: the decoding goes from left to right.
        """
        ranker = self._explaining(query, k)
        everything = np.ones(len(self.documents), dtype=bool)
        found = explanation_table(self.documents, filled_digits(ranker, ranker.queries, k, False, everything))
        return found.rename({Columns.ITEM: Columns.DOCUMENT})

    def explanation_note(self) -> str:
        """What the confidences of :meth:`explain` leave unsaid of how lists come about; empty where they say all."""
        return self.recipe.decoding.build(seed=self.recipe.seed).unsaid()

    def beams(self, query: Any, k: int = 10, *, show: int = 10) -> pl.DataFrame:
        """The search for the k best documents of one query as it goes: the best partial SIDs after every step.

        Args:
            query: see :meth:`explain`; show: partial SIDs of each step, 1 or more.

        Returns:
            step (from 1), place (from 1), score (log-probability), digits (list of n codes, null where unknown).

        Raises:
            DataError, DiffGRMError: see :meth:`explain`; ``show`` is no number of partial SIDs.
        """
        ranker = self._explaining(query, k)
        return beams_table(searched(ranker, ranker.queries, k, False, show))

    @property
    def explains(self) -> bool:
        """Whether :meth:`explain` and :meth:`beams` are there for its decoding, which then fills digits in any order."""
        asked: str = registry.constant("decoding", self.recipe.decoding.name, "asks", "denoise")
        return asked == "denoise"

    def _explaining(self, query: Any, k: int) -> QueryRanker:
        """The ranker of one query whose documents can be explained."""
        check_k(k, len(self.documents), "documents")
        if not self.explains:
            raise DiffGRMError(
                f"decoding.name = {self.recipe.decoding.name} goes from left to right, and only digits that masked "
                "diffusion fills can be explained; fit with model.name=diffgrm"
            )
        table = asked_queries(query)
        if table.height != 1:
            raise DataError(f"one query is explained at a time, found {table.height}; ask for each")
        return self._ranker(as_items(table))

    def _ranker(self, queries: pl.DataFrame) -> QueryRanker:
        """Network, decoder and catalogue, ready to rank documents for queries."""
        network, texts = part_of(self.parts, "network", QueryNetwork), part_of(self.parts, "texts", TextVectors)
        device = next(network.in_use.parameters()).device
        vectors = query_vectors(texts.encoder, queries, self.catalogue.table)
        check_width(vectors, network.sizes["text_width"])
        if self._tables is None:
            features = item_features(self.parts, self.catalogue.counts, len(self.documents)).to(device)
            self._tables = Tables(self.recipe, self.parts, None).catalogue(features)
        decoder = self.recipe.decoding.build(seed=self.recipe.seed)
        return QueryRanker.of(network.in_use, decoder, self._tables, torch.from_numpy(vectors).to(device))

    def variant(self, overrides: Iterable[str]) -> Self:
        """The same retriever with other decoding settings, such as ``["decoding.name=one_pass"]``; this one stays.

        Raises:
            RecipeError: overrides of settings that fitting has used up, or that do nothing beside the others.
        """
        changed = copy.copy(self)
        changed.recipe = changed_after_fit(self.recipe, overrides)
        check_recipe(changed.recipe)
        changed.recipe.decoding.build(seed=self.recipe.seed).check(self.semantic_ids.n_digits, len(self.documents))
        changed.parts = {name: part.recipe_changed(changed.recipe) for name, part in self.parts.items()}
        return changed

    def to(self, device: str, precision: Literal["32", "bf16"] = "32") -> Self:
        """Move what computes to a torch device, ``"auto"`` being a GPU if there is one; returns the retriever.

        Raises:
            DiffGRMError: not fitted, another precision, or a device that is not there.
        """
        usable_device(device, precision)
        self.take({name: part.to(device, precision) for name, part in self.parts.items()}, self.catalogue, self.facts)
        return self

    # ---- save and load ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the model folder, whole or not at all; a retriever that was there is replaced.

        Raises:
            ModelFolderError: the place is taken by something else, or writing failed (nothing is lost then).
        """
        return saving.write(self, Path(folder), model_folder.DOCUMENTS, EXAMPLE)

    @classmethod
    def load(cls, folder: str | Path, *, trust_code: Trust = False) -> Self:
        """Read a model folder. Nothing that it names is run but diffgrm's own parts.

        Args:
            trust_code: True also imports classes of others that its recipe names as ``module:Class``; or their names.

        Raises:
            ModelFolderError: no folder of a retriever, not whole, or with code that is not trusted.
        """
        return saving.read(Path(folder), cls, trust_code, model_folder.DOCUMENTS)

    def take(self, parts: dict[str, LearntPart], catalogue: ItemCatalogue, facts: dict[str, Any]) -> None:
        """Go over to learnt parts, their documents, and what their fit noted."""
        self.parts, self._catalogue, self.facts, self._tables = parts, catalogue, facts, None


def search_table(queries: pl.Series, documents: IdMap, positions: Any, scores: Any) -> pl.DataFrame:
    """query_id, doc_id, score, rank of ranked documents; see :func:`diffgrm.recommenders.answers.answer_table`."""
    found = answer_table(queries, documents, positions, scores)
    return found.rename({Columns.USER: Columns.QUERY, Columns.ITEM: Columns.DOCUMENT})
