"""Documents, queries and which documents answer which, read and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.columns import shown_cell
from diffgrm.data.dataset import Ragged
from diffgrm.data.frames import load_frame
from diffgrm.data.ids import IdMap, id_order, is_unicode
from diffgrm.data.tables import read_table, read_texts, renamings_for, with_ids
from diffgrm.foundation.schema import Columns, DataError, bullet_list, first_few

logger = logging.getLogger(__name__)

OURS = (Columns.QUERY, Columns.DOCUMENT, Columns.TEXT, Columns.TITLE, Columns.RELEVANCE, Columns.SPLIT)
OF_QUERIES = (Columns.QUERY, Columns.TEXT, Columns.SPLIT)


def open_tables(
    documents: Any, queries: Any, qrels: Any, columns: Mapping[str, str] | None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Tables (paths or frames) of documents, queries and judgements, not yet read.

    Raises:
        DataError: see :func:`diffgrm.data.frames.load_frame`; or columns to rename that none of them has.
    """
    what = "document table", "query table", "qrels table"
    first, second, third = map(load_frame, (documents, queries, qrels), what)
    renamings_for(columns, first, second, third, what=f"the {', the '.join(what)}", ours=OURS)
    return first, second, third


def read_documents(source: Any, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Documents as ``doc_id, text`` and whatever columns the table has besides (a ``title``...); one row a document.

    Texts are cleaned as those of items are, see :func:`diffgrm.data.tables.read_items`.

    Raises:
        DataError: see there.
    """
    frame = load_frame(source, "document table")
    mend = "leave them out, or give at least a title as text"
    names = _renamings(frame, columns, Columns.TITLE, "document table")
    return read_texts(frame, names, Columns.DOCUMENT, ("document", "documents"), mend)


def read_queries(source: Any, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Queries as ``query_id, text`` and whatever columns the table has besides; one row a query.

    Raises:
        DataError: see :func:`diffgrm.data.tables.read_items`; a query without text is none.
    """
    frame = load_frame(source, "query table")
    mend = "an empty query asks for nothing; leave it out"
    names = _renamings(frame, columns, Columns.SPLIT, "query table")
    return read_texts(frame, names, Columns.QUERY, ("query", "queries"), mend)


def asked_queries(source: Any) -> pl.DataFrame:
    """What is asked for as a table of queries: a text is one, and a list of texts several, which are numbered from 0.

    Args:
        source: else see :func:`read_queries`; the path of a table is a ``Path``, for a text is always a query.

    Raises:
        DataError: see there; or a list of something else.
    """
    texts = [source] if isinstance(source, str) else source
    if not isinstance(texts, list | tuple):
        return read_queries(texts)
    if strange := [repr(text) for text in texts if not isinstance(text, str)]:
        raise DataError(f"queries are texts, found {first_few(strange)}; give a list of texts, or a table")
    if broken := [f"{text[:40]!r} (place {place})" for place, text in enumerate(texts) if not is_unicode(text)]:
        raise DataError(f"{first_few(broken)} holds half of a surrogate pair; ask with whole characters")
    return read_queries(
        pl.DataFrame({Columns.QUERY: np.arange(len(texts)), Columns.TEXT: pl.Series(texts, dtype=pl.String)})
    )


def read_qrels(source: Any, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Judgements as ``query_id, doc_id, relevance``; without the last column, every pair is relevant (1).

    Raises:
        DataError: see :func:`diffgrm.data.tables.read_table`; also null or empty ids, pairs that stand more than once, and
            a relevance that is no number.
    """
    frame = load_frame(source, "qrels table")
    pair = (Columns.QUERY, Columns.DOCUMENT)
    names = _renamings(frame, columns, Columns.RELEVANCE, "qrels table")
    frame = read_table(frame, names, required=pair, what="qrels table")
    if Columns.RELEVANCE not in frame.columns:
        frame = frame.with_columns(pl.lit(1).alias(Columns.RELEVANCE))
    frame, problems = with_ids(frame.select(*pair, Columns.RELEVANCE), pair)
    if doubled := int(frame.select(pair).is_duplicated().sum()):
        problems.append(f"{doubled} rows judge a pair of query and document that another row judges too; keep one of each")
    given = frame[Columns.RELEVANCE]
    judged = pl.Series(Columns.RELEVANCE, [None] * frame.height, pl.Float64)
    if given.dtype.is_numeric() or given.dtype == pl.String:  # text files hold texts
        judged = given.cast(pl.Float64, strict=False).fill_nan(None)
    if judged.null_count():
        row = int(judged.is_null().arg_true()[0])
        problems.append(
            f"relevance is {shown_cell(given, row)} in row {row}; expected a number in every row, above 0 for what is "
            "relevant"
        )
    if problems:
        raise DataError("the qrels table has problems:\n" + bullet_list(problems))
    return frame.with_columns(judged)


def _renamings(frame: pl.DataFrame, columns: Mapping[str, str] | None, own: str, what: str) -> dict[str, str]:
    """Those renamings whose column the table has.

    Args:
        own: a column that a table may lack, and that no other table has.

    Raises:
        DataError: names that are not ours, or the own column is to be another one that is not there.
    """
    elsewhere = [name for name in OURS if name != own]
    return renamings_for(columns, frame, what=f"the {what}", ours=OURS, elsewhere=elsewhere)[0]


@dataclass(frozen=True)
class JudgedQueries:
    """Queries, and the documents that answer each.

    Attributes:
        table: ``query_id, text`` and more, a row a query.
        relevant: positions of the relevant documents of each query; rows may be empty.
    """

    table: pl.DataFrame
    relevant: Ragged

    @classmethod
    def from_tables(
        cls,
        queries: Any,
        qrels: Any,
        documents: IdMap,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> JudgedQueries:
        """Read and check queries and judgements. What is judged above 0 is relevant; grades are not told apart.

        Args:
            documents: the documents that there are.
            split: only the queries whose column ``split`` holds this; None: all.

        Raises:
            DataError: see :func:`read_queries` and :func:`read_qrels`; qrels of unknown queries or documents, or no such
                split.
        """
        queries, qrels = load_frame(queries, "query table"), load_frame(qrels, "qrels table")
        of_documents = (Columns.DOCUMENT, Columns.TEXT, Columns.TITLE)
        what = "the query table and the qrels table"
        renamings_for(columns, queries, qrels, what=what, ours=OURS, elsewhere=of_documents)
        table, judged = read_queries(queries, columns), read_qrels(qrels, columns)
        row, place = (
            IdMap(table[Columns.QUERY]).positions(judged[Columns.QUERY]),
            documents.positions(judged[Columns.DOCUMENT]),
        )
        problems = [
            f"{unknown.n_unique()} {many} of the qrels are in no row of the {what} table: "
            f"{first_few(unknown.unique(maintain_order=True))}"
            for what, many, positions, column in (
                ("query", "queries", row, Columns.QUERY),
                ("document", "documents", place, Columns.DOCUMENT),
            )
            if len(unknown := judged[column].filter(pl.Series(positions < 0)))
        ]
        if problems:
            raise DataError("the qrels name what is not there; add it, or drop those rows:\n" + bullet_list(problems))
        keep = (judged[Columns.RELEVANCE] > 0).to_numpy()
        found = _grouped(row[keep], place[keep], table.height)
        if split is None:
            return cls(table, found)
        chosen = np.flatnonzero(_of_split(table, split))
        return cls(table[chosen], found.rows(chosen))

    def __len__(self) -> int:
        return self.table.height

    def answerable(self) -> JudgedQueries:
        """The queries that have a relevant document; how many have none is told in a warning.

        Raises:
            DataError: none has one.
        """
        has = self.relevant.lengths > 0
        if not has.any():
            raise DataError(
                f"none of {len(self)} queries has a relevant document; the qrels judge them all 0, or not at all"
            )
        if not has.all():
            without = self.table[Columns.QUERY].filter(pl.Series(~has))
            told = len(without), len(self), first_few(without)
            logger.warning("%d of %d queries have no relevant document and are left out: %s", *told)
        return self.rows(np.flatnonzero(has))

    def rows(self, chosen: np.ndarray) -> JudgedQueries:
        """Some queries, by their place."""
        return JudgedQueries(self.table[chosen], self.relevant.rows(chosen))


def _grouped(row: np.ndarray, values: np.ndarray, rows: int) -> Ragged:
    """Values by their row, in the order given."""
    order = np.argsort(row, kind="stable")
    return Ragged(values[order], np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64))


def _of_split(table: pl.DataFrame, split: str) -> np.ndarray:
    if Columns.SPLIT not in table.columns:
        raise DataError(f"the queries {split!r} are asked for, but the query table has no column {Columns.SPLIT!r}")
    names = table[Columns.SPLIT].cast(pl.String)
    found = (names == split).fill_null(False).to_numpy()
    if not found.any():
        known = first_few(names.drop_nulls().unique().sort())
        raise DataError(f"no query has {Columns.SPLIT} = {split!r}; the query table has {known}")
    return found


def as_items(documents: pl.DataFrame) -> pl.DataFrame:
    """A table of documents or queries under the names that tables of items have."""
    key = Columns.DOCUMENT if Columns.DOCUMENT in documents.columns else Columns.QUERY
    return documents.drop(Columns.ITEM, strict=False).rename({key: Columns.ITEM})


def ordered(documents: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Documents in order of their ids, so that nothing depends on the order of rows; and where each stood."""
    given = id_order(documents[Columns.DOCUMENT])
    return documents[given], given
