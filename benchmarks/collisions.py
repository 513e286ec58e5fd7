"""How long collision repair takes for many items: python benchmarks/collisions.py [--items 100000]

Four catalogues: few collisions, most items colliding, two thousand copies of one item, and half of the items nearly alike.
``later`` is the time for the second half of the items where they come after the first, ``peak`` the most memory so far.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time

import numpy as np

from diffgrm.semantic_ids.collisions import place, reassign
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"# {platform.machine()}, Python {platform.python_version()}, {arguments.items:,} items, 4 digits x 256 codes")
    half = arguments.items // 2
    catalogues = (
        ("few", 5, 0.5, 0, 0),
        ("crowded", 12.5, 0.15, 0, 0),
        ("copies", 5, 0.5, 2000, 0),
        ("alike", 5, 0.5, 0, half),
    )
    for name, centres, spread, copies, alike in catalogues:
        generator = np.random.default_rng(0)
        n_centres = int(arguments.items / centres)
        vectors = generator.normal(size=(n_centres, 64))[generator.integers(0, n_centres, arguments.items)]
        vectors = (vectors + spread * generator.normal(size=vectors.shape)).astype(np.float32)
        vectors[:copies] = vectors[0]
        vectors[len(vectors) - alike :] = vectors[0] + 0.01 * generator.normal(size=(alike, 64))
        tokenizer = OPQTokenizer(4, 256, pca_width=64, iterations=5).fit(TokenizerContext.of(vectors[:30_000]))
        codes = tokenizer.encode(vectors)
        seconds = []
        for _ in range(arguments.repeats):
            started = time.perf_counter()
            repaired = reassign(tokenizer, vectors, codes)
            seconds.append(round(time.perf_counter() - started, 1))
        assert len(np.unique(repaired.codes, axis=0)) == arguments.items
        there = reassign(tokenizer, vectors[:half], codes[:half]).codes
        started = time.perf_counter()
        later = place(tokenizer, vectors[half:], codes[half:], there)
        later_seconds = round(time.perf_counter() - started, 1)
        assert len(np.unique(np.concatenate([there, later]), axis=0)) == arguments.items
        result = {"catalogue": name, "distinct before": len(np.unique(codes, axis=0)), "moved": int(repaired.moved.sum())}
        peak = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
        print(json.dumps(result | {"seconds": seconds, "later": later_seconds, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
