from __future__ import annotations

import diffgrm
from diffgrm.apps import demo


def test_the_demo_shows_report_metrics_and_recommendations(monkeypatch, capsys, tmp_path):
    """With one epoch; the real one takes minutes."""
    monkeypatch.setattr(demo, "RECIPE", demo.RECIPE.override(["training.epochs=1", "training.validate_every=1"]))
    monkeypatch.setattr(demo, "toy_world", lambda: diffgrm.toy_world(users=80))
    demo.run(tmp_path / "model", quiet=True)
    out = capsys.readouterr().out
    for part in ("Tokeniser report", "hybrid", "popularity", "random", "ndcg@10", "bought:", "✓"):
        assert part in out
    assert "lists are ranked by whole items" in " ".join(out.split()) and "diffgrm explain" in out
    assert diffgrm.load(tmp_path / "model").recommend(["item 1"], k=3).height == 3
