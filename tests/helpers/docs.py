"""The docs, and the scripts beside them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def docs_script(name):
    """A script of docs/, imported as when it is called."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    return importlib.import_module(name)
