"""Semantic IDs do not depend on the number of threads of BLAS and OpenMP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from threadpoolctl import threadpool_info

from diffgrm.semantic_ids.threads import one_thread

TEXT_TO_SIDS = """
import hashlib, sys
import numpy as np, polars as pl
from diffgrm.foundation.registry import resolve
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.lsa import LSA
from diffgrm.semantic_ids.semantic_ids import tokenize_items
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from pathlib import Path

generator = np.random.default_rng(0)
words = [f"word{i}" for i in range(3000)]
texts = [" ".join(words[i] for i in generator.zipf(1.3, 12) % 3000) for _ in range(1200)]
items = pl.DataFrame({"item_id": np.arange(1200), "text": texts})
in_training, folder = np.arange(1200) % 10 > 0, Path(sys.argv[1])
vectors = embed_items(LSA(width=128), items, in_training, folder)
print("vectors", hashlib.sha256(vectors.tobytes()).hexdigest())
for name, settings in [
    ("opq", {"codebook_size": 64, "pca_width": 128}),
    ("residual_kmeans", {"codebook_size": (64, 50, 40, 30)}),
    ("mh_vqvae", {"codebook_size": (64, 32, 16, 8), "width": 8, "hidden": (64,), "epochs": 6, "batch_size": 256}),
    ("parts.gradient_tokenizer:GradientTokenizer", {"codebook_size": (64, 32, 16, 8), "width": 64, "steps": 50}),
]:
    tokenizer = resolve("tokenizer", name)(4, seed=0, **settings)
    ids, report = tokenize_items(tokenizer, TokenizerContext(vectors, in_training), "reassign", settings, folder)
    state = b"".join(array.tobytes() for array in tokenizer.state().arrays.values())
    print(name, hashlib.sha256(ids.codes.tobytes() + state).hexdigest(), report)
"""


def test_text_to_sids_is_the_same_bit_for_bit_on_one_and_two_threads(tmp_path):
    found = []
    for threads in ("1", "2"):
        variables = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        command = [sys.executable, "-c", TEXT_TO_SIDS, str(tmp_path / threads)]
        run = subprocess.run(
            command, env=os.environ | variables | {"PYTHONPATH": path}, check=True, capture_output=True, text=True
        )
        found.append(run.stdout)
    assert found[0] == found[1] and len(found[0].splitlines()) == 5


def threads():
    return {(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()}


def test_the_limit_ends_with_the_block_even_where_blocks_meet_or_fail():
    before = threads()
    seen = []

    def work():
        for _ in range(20):
            with one_thread(), one_thread():
                seen.append({number for _, number in threads()})

    workers = [Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert seen == [{1}] * 80 and threads() == before
