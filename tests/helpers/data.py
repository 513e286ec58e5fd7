"""Benchmark datasets, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("DIFFGRM_BENCHMARK_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def shared_data(name: str) -> Path:
    """A benchmark dataset's folder; the test is skipped where it is absent."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
