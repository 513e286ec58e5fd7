"""How the benchmark of a server tells answers apart."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx")
FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "serve.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_serve", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ([("a", -1.0), ("b", -2.0), ("c", -2.00002)], "equal"),
        ([("a", -1.00001), ("b", -2.0), ("c", -2.00002)], "equal"),
        ([("a", -1.0), ("c", -2.00001), ("b", -2.00002)], "tied"),
        ([("a", -1.0), ("b", -2.0), ("d", -2.00003)], "tied"),
        ([("a", -1.0), ("b", -2.0), ("d", -2.5)], "different"),
        ([("b", -1.0), ("a", -2.0), ("c", -2.00002)], "different"),
        ([("d", -1.0), ("b", -2.0), ("c", -2.00002)], "different"),
        ([("a", -1.1), ("b", -2.0), ("c", -2.00002)], "different"),
        ([("a", -1.0), ("b", -2.0)], "different"),
    ],
)
def test_an_answer_is_equal_tied_or_different(benchmark, fitted, answer, verdict):
    expected = benchmark.Expected(fitted, [["item 3"]], {})
    expected.lists = [[("a", -1.0), ("b", -2.0), ("c", -2.00002)]]
    assert expected.check(0, [{"item_id": item, "score": score} for item, score in answer]) == verdict


def test_models_without_a_beam_are_asked_as_they_are(benchmark, fitted):
    assert benchmark.Expected(fitted, [["item 3"]], {}).width == {}
    found = benchmark.Expected(fitted, [["item 3"]], {"beam": 4}).lists[0]
    wanted = fitted.variant(["decoding.beam=4"]).recommend([["item 3"]], 10)
    assert [item for item, _ in found] == wanted["item_id"].to_list()
