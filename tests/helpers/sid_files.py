"""Files of semantic IDs for tests."""

from __future__ import annotations

import numpy as np

from diffgrm.semantic_ids.sid_files import write_sids


def drawn_sids(folder, items, n_digits, codebook_size):
    """The path of a file of drawn semantic IDs, of which some repeat; always the same."""
    codes = np.random.default_rng(0).integers(0, codebook_size, (len(items), n_digits))
    codes[1:3] = codes[0]
    path = folder / f"sids-{len(items)}-{n_digits}-{codebook_size}.json"
    write_sids(items, codes, path)
    return str(path)
