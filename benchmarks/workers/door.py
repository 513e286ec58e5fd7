"""Benchmark worker that asks a saved recommender at its door: histories of item ids in, a table out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protocol import Workload, resident, serve

import diffgrm


class Door:
    """A model folder through PyTorch, or an export through ONNX Runtime."""

    def load(self, workload: str, folder: str, beam: int, threads: int, onnx: bool) -> dict[str, Any]:
        """Read the folder.

        Args:
            beam: partial SIDs kept for each user; onnx: whether the folder is an export.
        """
        before = resident()
        self.recommender: Any
        if onnx:
            self.recommender = diffgrm.load_onnx(folder, threads=threads, beam=beam)
        else:
            self.recommender = diffgrm.load(folder).override([f"decoding.beam={beam}"])
        items = self.recommender.items
        self.histories = [items.ids(history) for history in Workload(workload).histories]
        return {"loaded_mb": round(resident() - before, 1), "bytes": sum(f.stat().st_size for f in Path(folder).iterdir())}

    def recommend(self, first: int, users: int, k: int = 10, lists: bool = False) -> dict[str, Any]:
        """The k best unseen items of some users.

        Args:
            lists: whether to hand back each user's items and scores.
        """
        chosen = self.histories[first : first + users]
        found = self.recommender.recommend(chosen, k)
        if not lists:
            return {"users": len(chosen)}
        rows = found.group_by("user_id", maintain_order=True).agg("item_id", "score")
        return {"users": len(chosen), "items": rows["item_id"].to_list(), "scores": rows["score"].to_list()}


if __name__ == "__main__":
    worker = Door()
    serve({"load": worker.load, "recommend": worker.recommend})
