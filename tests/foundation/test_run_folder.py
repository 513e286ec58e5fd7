"""Checkpoints of a fit and of what is trained before it, in one folder."""

from __future__ import annotations

import pytest

from diffgrm.foundation.run_folder import drop_checkpoints, holds_checkpoint


@pytest.mark.parametrize("place", [".", "item_scorer", "item_scorer/item_scorer", "tokenizer"])
def test_a_checkpoint_is_found_wherever_it_lies_and_dropped_with_all_others(place, tmp_path):
    for name in ("logs/part_0/metrics.csv", "item_scorer/logs/part_0/metrics.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("step")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    assert not holds_checkpoint(tmp_path)
    (tmp_path / place / "best.ckpt").touch()  # written before the last one: nothing to go on from yet
    assert not holds_checkpoint(tmp_path)
    (tmp_path / place / "last.ckpt").touch()
    assert holds_checkpoint(tmp_path)
    drop_checkpoints(tmp_path)
    assert not holds_checkpoint(tmp_path) and not list(tmp_path.rglob("*.ckpt")) and len(list(tmp_path.rglob("*.csv"))) == 2


def test_a_folder_that_is_not_there_holds_none(tmp_path):
    assert not holds_checkpoint(tmp_path / "nowhere")
    drop_checkpoints(tmp_path / "nowhere")
