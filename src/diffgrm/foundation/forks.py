"""Forked processes: polars' threads stay behind in the parent, so that a child would wait for them for ever."""

from __future__ import annotations

import os

from diffgrm.foundation.schema import DiffGRMError

_state = {"used": False, "left_behind": False}


def check() -> None:
    """Called wherever tables are about to be worked on.

    Raises:
        DiffGRMError: this process was forked from one that had worked on tables.
    """
    if _state["left_behind"]:
        raise DiffGRMError(
            "this process was forked from one that had used diffgrm, whose threads a fork does not copy, so that it would "
            "hang. Start it anew instead: multiprocessing.get_context('spawn'), ProcessPoolExecutor(mp_context=...), "
            "DataLoader(multiprocessing_context='spawn'); servers that fork must load the model after the fork (gunicorn "
            "without --preload)"
        )
    _state["used"] = True


def _in_child() -> None:
    _state["left_behind"] = _state["used"]


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
