"""What people see in the terminal: names and texts as they are, whatever they hold and however narrow the terminal is."""

from __future__ import annotations

import polars as pl
import pytest
from rich.console import Console

from diffgrm.apps import console

ITEMS = pl.DataFrame({"item_id": ["[red]a[/]", "b", "c"], "text": ["[bold]x [/] y [1]", None, "long " * 40]})
LIST = pl.DataFrame({"user_id": ["[u]"] * 3, "item_id": ITEMS["item_id"], "score": [1.0, 2.0, 3.0], "rank": [1, 2, 3]})


@pytest.fixture(params=[60, 80, 200])
def shown(request, monkeypatch):
    """What the terminal holds, of some width."""
    recording = Console(width=request.param, record=True)
    monkeypatch.setattr(console, "console", recording)
    return recording.export_text


def test_lists_are_shown_as_they_are(shown):
    console.show_recommendations(LIST, ITEMS)
    text = shown()
    assert "[u]" in text and "[red]a[/]" in text and "[bold]x" in text and "3.000" in text
    assert len(text.splitlines()) == 8  # each item on one line


def test_so_are_explanations(shown):
    row = {"rank": 1, "item_id": "[red]a[/]", "step": 1, "digit": 0, "code": 3, "confidence": 0.5, "rival": 2}
    console.show_explanation(pl.DataFrame([row | {"rival_confidence": 0.2, "items_left": 7}]), ITEMS)
    text = shown()
    assert "[red]a[/]" in text and "[bold]x [/] y [1]" in text.replace("\n", " ") and "50.0%" in text
