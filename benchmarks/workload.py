"""The workload of the speed benchmarks: real or synthetic items, histories and training examples in one .npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffgrm import InteractionDataset, Recipe, leave_one_out, toy_world
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


def real_workload(
    path: Path, data: Path | None, examples: int, users: int, seed: int, sids: SemanticIds | None = None
) -> dict[str, object]:
    """Write the workload of a dataset folder (None: the toy storefront) and say what is in it.

    Args:
        sids: semantic IDs of its items; None: made here.
        examples: training examples, drawn at random from all (history, next item) pairs of the training events, with at
            least two items of history (Cornac's rule).
        users: test histories, drawn at random.
    """
    dataset = dataset_of(data)
    split = leave_one_out(dataset)
    if sids is None:
        codes, codebook_size = semantic_ids(dataset, split.item_counts > 0, seed)
    else:
        codes, codebook_size = sids.codes, sids.codebook_size
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(split.test), min(users, len(split.test)), replace=False)
    train = split.train
    first = np.repeat(train.offsets[:-1], train.lengths)
    targets = np.flatnonzero(np.arange(len(train.values)) - first >= 2)
    targets = generator.choice(targets, min(examples, len(targets)), replace=False)
    windows = [train.values[max(first[t], t - 50) : t] for t in targets]
    return write(
        path,
        codes,
        codebook_size,
        [split.test.histories[row] for row in rows],
        windows,
        train.values[targets],
        dataset.name,
    )


def dataset_of(data: Path | None) -> InteractionDataset:
    """The dataset of a folder; the toy storefront where there is none."""
    if data is None:
        return toy_world(users=3000).dataset
    return InteractionDataset.from_tables(data / "interactions.parquet", data / "items.parquet", name=data.name)


def semantic_ids(dataset: InteractionDataset, in_training: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """The paper's tokenizer over LSA vectors, every item its own SID."""
    items = dataset.item_table
    size = 256 if in_training.sum() >= 2560 else 32
    recipe = Recipe(recommender="diffgrm", tokenizer={"codebook_size": size})
    if len(items) < 3000:
        recipe = recipe.override(["embedding.width=64", "tokenizer.pca_width=32"])
    embeddings = embed_items(recipe.embedding.build(seed=seed), items, in_training)
    tokenizer = recipe.tokenizer.build(seed=seed)
    tokenizer.fit(TokenizerContext(embeddings, in_training, seed=seed))
    return SemanticIds.build(tokenizer, embeddings, "reassign")[0].codes, size


def synthetic_workload(
    path: Path, items: int, n_digits: int, codebook_size: int, history: int, users: int, seed: int
) -> dict[str, object]:
    """Random distinct SIDs and random histories of one length, for scaling."""
    generator = np.random.default_rng(seed)
    codes = np.unique(generator.integers(0, codebook_size, (int(items * 1.02) + 100, n_digits)), axis=0)
    codes = generator.permutation(codes)[:items]
    histories = list(generator.integers(0, len(codes), (users, history)))
    return write(path, codes, codebook_size, histories, histories, generator.integers(0, len(codes), users), "synthetic")


def write(
    path: Path,
    codes: np.ndarray,
    codebook_size: int,
    histories: list[np.ndarray],
    windows: list[np.ndarray],
    targets: np.ndarray,
    name: str,
) -> dict[str, object]:
    """Save a workload; returns its facts."""

    def ragged(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(rows), np.cumsum([0] + [len(row) for row in rows])

    values, offsets = ragged(histories)
    window_values, window_offsets = ragged(windows)
    np.savez(
        path,
        codes=codes.astype(np.int64),
        codebook_size=codebook_size,
        history_values=values,
        history_offsets=offsets,
        window_values=window_values,
        window_offsets=window_offsets,
        targets=targets,
    )
    return {
        "data": name,
        "items": len(codes),
        "digits": codes.shape[1],
        "codes": codebook_size,
        "mean_test_history": round(float(np.diff(offsets).clip(max=50).mean()), 2),
        "mean_training_history": round(float(np.diff(window_offsets).mean()), 2),
    }
