"""OnnxRecommender: an exported model, asked as every recommender is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import polars as pl
from pydantic import ValidationError

from diffgrm.data.asking import with_moments, with_profiles
from diffgrm.data.collate import in_batches
from diffgrm.data.context import EVENTS_FROM, check_clock
from diffgrm.data.frames import is_list
from diffgrm.data.histories import HistoryEvent, read_histories
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import PLAIN
from diffgrm.data.profiles import Profiles
from diffgrm.foundation import model_folder
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.parts import as_part, read_scorers
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import Columns, DataError, ModelFolderError
from diffgrm.foundation.sections import RetrievalSettings, Section
from diffgrm.foundation.storage import State, regular
from diffgrm.foundation.yaml_text import LONGEST, read_yaml
from diffgrm.ranking.first_stage import FirstStage
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.item_rules import ItemRules
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems
from diffgrm.ranking.query import Query
from diffgrm.ranking.ruled import rank_by_rules
from diffgrm.ranking.rules import read_rules
from diffgrm.recommenders.answers import answer_table, candidate_items
from diffgrm.recommenders.item_catalogue import COUNT, RECOMMENDABLE, read_item_rows
from diffgrm.recommenders.parts import of_all_items
from diffgrm.recommenders.saving import RECIPE
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import SIDS
from diffgrm.recommenders.user_profiles import read_kept
from diffgrm.runtime_onnx.decoding import BeamSearch, Decoding, chosen_width
from diffgrm.runtime_onnx.network import CONTEXT, TYPES, Network
from diffgrm.runtime_onnx.numpy_catalogue import Catalogue, Excluded
from diffgrm.runtime_onnx.one_pass import OnePass
from diffgrm.runtime_onnx.proposals import ItemProposals
from diffgrm.runtime_onnx.search import Task
from diffgrm.semantic_ids.semantic_ids import SemanticIds

S = TypeVar("S", bound=Section)

VECTORS, COMPARABLE = "vectors", "comparable"  # [I, d] as they stand in histories, and where others are compared, those
PAIRS = "pairs"  # [I, r] what pairs of digits say, where there are such scores
ITEM_VECTORS = "item_vectors.safetensors"
KEPT = 2  # filters: one of the question, and one of a rule beside it
LOGITS_AT_ONCE = 2**19  # numbers that the network gives back in one call; more would leave the cache
LARGEST = {"threads": 1024, "beam": 2**16, "candidates": 2**31 - 1}


class OnnxRecommender:
    """Recommends from an export, with the answers of the recommender that was exported (rounding aside).

    Args:
        network: the graphs.
        catalogue: the items that may be recommended.
        items: ids of all items.
        vectors: [I, d] float32 of all items, as they stand in histories.
        max_len: most recent history items that are looked at.
        decoding: how items are found.
        item_table: rows of all items, whose columns rules may go by.
        events: how histories are read, and what the network is told of them.
        causal: whether it is; see :class:`diffgrm.data.context.Context`.
        profiles: what is kept of users; None where the network is told nothing of them.
        learnt_from: see :func:`diffgrm.data.context.check_clock`.
    """

    takes_read_histories: ClassVar[bool] = True  # of evaluation

    def __init__(
        self,
        network: Network,
        catalogue: Catalogue,
        items: IdMap,
        vectors: np.ndarray,
        max_len: int,
        decoding: Decoding,
        item_table: pl.DataFrame,
        events: EventSettings = PLAIN,
        causal: bool = False,
        profiles: Profiles | None = None,
        learnt_from: int | None = None,
    ) -> None:
        self.items, self.decoding, self.item_table, self.events = items, decoding, item_table, events
        self._network, self._catalogue, self._vectors, self._max_len = network, catalogue, vectors, max_len
        self._causal, self._profiles, self._learnt_from = causal, profiles, learnt_from
        self._recommendable = None if catalogue.recommendable.all() else catalogue.recommendable
        self._restricted: dict[bytes, Catalogue] = {}  # by the last filters; their tables are worth keeping
        self._ruled: ItemRules | None = None  # the last rules that were asked for

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        only: Any = None,
        without: Any = None,
        rules: Any = None,
        on_empty: Literal["error", "skip"] = "error",
        at: Any = None,
        profiles: Any = None,
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """The k best items for each history; arguments, answer and errors as of ``Recommender.recommend``, which see.

        Raises:
            DataError: k out of range, unusable histories, filters that know or leave no item, or rules that cannot be used;
                rules with diversity cannot, for an export has no vectors that tell how similar items are.
        """
        ruled = self.item_rules(rules)
        where = None if ruled is None else ruled.where
        candidates = candidate_items(self.items, self._recommendable, k, only, without, where)
        user_ids, rows = read_histories(histories, self.items, on_empty, self.events)
        check_clock(rows.marks.times, self.events, self._learnt_from)
        named = not is_list(histories)
        positions = with_profiles(user_ids, with_moments(user_ids, rows, at), profiles, self._profiles, named)
        query = Query(positions, k, exclude_seen, candidates, progress)
        found, scores = rank_by_rules(self._rank, query, ruled, len(self.items), self.decoding.takes_offsets)
        return answer_table(user_ids, self.items, found, scores)

    def item_rules(self, rules: Any) -> ItemRules | None:
        """See :meth:`Recommender.item_rules`."""
        if (found := read_rules(rules)) is None:
            return None
        kept = self._ruled  # read once, since several threads may ask for rules
        if kept is None or kept.rules != found:
            kept = self._ruled = ItemRules.of(found, self.items, self.item_table, None)
        return kept

    def _restricted_to(self, candidates: np.ndarray | None) -> Catalogue:
        """The catalogue of the items that ``candidates`` [I] marks; None is all that are recommendable."""
        whole = self._catalogue
        if candidates is None or candidates is self._recommendable:
            return whole
        key = np.packbits(candidates).tobytes()
        if (restricted := self._restricted.get(key)) is None:
            restricted = whole.restricted(candidates)
            self._restricted = dict([*self._restricted.items()][1 - KEPT :]) | {key: restricted}
        return restricted

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first, -1 after the last, and their scores [U, k]."""
        catalogue, histories, k = self._restricted_to(query.candidates), query.histories, query.k
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        logits = catalogue.n_digits * catalogue.codebook_size * self.decoding.rows(len(catalogue), k)  # of a user
        batches = in_batches(histories, self._max_len, max(1, LOGITS_AT_ONCE // logits), self._causal)
        for users, (distinct, places, valid, types, context) in batches:
            memory = self._network.encode_history(self._vectors[distinct], places, valid, types, context)
            own = histories.rows(users)
            excluded = Excluded(own.seen(), len(self.items)) if query.exclude_seen else None
            task = Task(self._network, memory, catalogue, k, excluded, offsets=query.offsets)
            items[users], scores[users] = self.decoding.decode(task, own)
            if query.progress:
                query.progress(len(users))
        return items, scores


def load_onnx(
    folder: str | Path,
    *,
    threads: int | None = None,
    beam: int | None = None,
    candidates: int | None = None,
    trust_code: Trust = False,
) -> OnnxRecommender:
    """Load what ``diffgrm export`` has written. PyTorch is not loaded, and need not be installed (docs/how-to/onnx.md).

    Args:
        threads: that ONNX Runtime computes with; None is all cores.
        beam: partial SIDs kept for each user, where a beam search decodes; None is the export's own number.
        candidates: items looked at for each user, where item scores propose them; None is the export's own number.
        trust_code: see :meth:`diffgrm.Recommender.load`; item scorers may be classes of others.

    Raises:
        DataError: numbers out of range, or one that the export's way of decoding does not have.
        ModelFolderError: not an export, one that is not whole, or one with code that is not trusted.
        MissingExtraError: ONNX Runtime is not installed.
    """
    width = {"beam": beam, "candidates": candidates}
    for name, value in {"threads": threads, **width}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST[name]):
            raise DataError(f"{name} is {value!r}; expected a whole number from 1 to {LARGEST[name]:,}, or None")
    place = Path(folder)

    def take(manifest: dict[str, Any]) -> OnnxRecommender:
        table = read_item_rows(place, (Columns.ITEM, RECOMMENDABLE))
        sids = of_all_items(SemanticIds.load(place / SIDS), table.height, place / SIDS)
        recipe = read_yaml(regular(place / RECIPE, LONGEST).read_text(encoding="utf-8"))
        try:
            arrays, max_len = State.load(place / ITEM_VECTORS).arrays, manifest["onnx"]["max_len"]
            causal = manifest["onnx"].get("causal", False)  # which older exports, that are told nothing, do not say
            for array in arrays.values():
                of_all_items(array, table.height, place / ITEM_VECTORS)
            vectors, decoding = arrays[VECTORS], _decoding(place, recipe, arrays, width)
            trained = None
            if isinstance(decoding, OnePass):
                trained = read_item_rows(place, (Columns.ITEM, RECOMMENDABLE, COUNT))[COUNT].to_numpy() > 0
            allowed = table[RECOMMENDABLE].to_numpy()
            catalogue = Catalogue(sids.codes.astype(np.int64), sids.codebook_size, allowed, trained)
        except KeyError as error:
            raise ModelFolderError(f"{place} is damaged: {error} is missing in it; export the model again") from error
        if type(max_len) is not int or max_len < 1:
            raise ModelFolderError(f"{place} is damaged: its max_len is {max_len!r}; expected a whole number from 1")
        if type(causal) is not bool:
            raise ModelFolderError(f"{place} is damaged: its causal is {causal!r}; expected true or false")
        items, network = IdMap(table[Columns.ITEM]), Network(place, threads)
        events = _section(place, recipe, "events", EventSettings)
        wanted = {TYPES: events.n_inputs > 0, CONTEXT: events.tells_context}
        if missing := [name for name, told in wanted.items() if told and name not in network.told]:
            raise ModelFolderError(
                f"{place} is damaged: its graph takes no {missing[0]}, of which its recipe tells networks; "
                "export the model again"
            )
        profiles = read_kept(place, events) if events.user_columns else None
        read = vectors, max_len, decoding, table, events, causal, profiles, manifest["facts"].get(EVENTS_FROM)
        recommender = OnnxRecommender(network, catalogue, items, *read)
        one = HistoryEvent(items.ids([0])[0], time=0)
        recommender.recommend([[one]], k=1, exclude_seen=False)  # the graphs take what the files hold
        return recommender

    return model_folder.read(place, take, model_folder.EXPORT, trust_code)


def _decoding(
    folder: Path, recipe: Mapping[str, Any], arrays: Mapping[str, np.ndarray], width: Mapping[str, int | None]
) -> Decoding:
    """How the recipe of an export decodes. No more of it is read, so that nothing else that it names needs to be installed.

    Args:
        arrays: the item vectors.
        width: see :func:`chosen_width`.
    """
    part = as_part("decoding", recipe["decoding"])
    count = chosen_width(part.name, part.options, width)
    if part.name == "one_pass":
        return OnePass(part.options["new_items"], arrays.get(PAIRS))
    if part.name != "item_proposals":
        return BeamSearch(count, part.options["order"])
    learnt = ItemScorers()
    learnt.read(folder, read_scorers(recipe["item_scoring"]), len(arrays[VECTORS]))
    items = ScoredItems(arrays.get(COMPARABLE, arrays[VECTORS]), learnt.neighbours)
    scoring = ItemScoring(tuple(learnt.scorers.values()), items)
    first_stage = FirstStage.of(_section(folder, recipe, "retrieval", RetrievalSettings), scoring, KeptIndex())
    return ItemProposals(scoring, count, part.options["weight"], first_stage)


def _section(folder: Path, recipe: Mapping[str, Any], name: str, kind: type[S]) -> S:
    """A plain section of the recipe of an export."""
    try:
        return kind(**recipe.get(name, {}))
    except (TypeError, ValidationError) as error:
        raise ModelFolderError(f"{folder} is damaged: the section {name} of its recipe: {error}") from error
