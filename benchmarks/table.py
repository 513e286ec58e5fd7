"""Results of benchmarks/real_data.py as a markdown table: python benchmarks/table.py docs/results/*-small.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

COLUMNS = ["recall@5", "ndcg@5", "recall@10", "ndcg@10"]


def main() -> None:
    print(
        "| data | recommender | " + " | ".join(f"{c.replace('recall', 'R').replace('ndcg', 'N')}" for c in COLUMNS) + " | ",
        end="",
    )
    print(" | ".join(f"{c.replace('recall', 'R').replace('ndcg', 'N')} unfiltered" for c in COLUMNS) + " | SID N@10 |")
    print("|---" * (3 + 2 * len(COLUMNS)) + "|")
    for path in map(Path, sys.argv[1:]):
        result = json.loads(path.read_text())
        for name, found in result["test"].items():
            metrics = found["metrics"]
            cells = [metrics[c] for c in COLUMNS] + [metrics[f"{c}_unfiltered"] for c in COLUMNS]
            cells.append(metrics.get("sid_ndcg@10"))
            numbers = " | ".join("-" if cell is None else f"{cell:.4f}".lstrip("0") for cell in cells)
            print(f"| {path.stem.removesuffix('-small')} | {name} | {numbers} |")


if __name__ == "__main__":
    main()
