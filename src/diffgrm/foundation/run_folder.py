"""Run folders: the checkpoints of a fit, of whatever is trained in it, while it is not over."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from diffgrm.foundation.outputs import held_folder
from diffgrm.foundation.schema import DataError

LAST, BEST = "last.ckpt", "best.ckpt"
LOCK = "fit.lock"  # held by the fit that is at work


def holds_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from: of the network, or of what is trained before it, in a folder of its own."""
    return next(folder.rglob(LAST), None) is not None


def drop_checkpoints(folder: Path) -> None:
    """Delete all checkpoints, once what they are for is saved; the logs stay, and what another fit is at work with."""
    paths = [path for name in (LAST, BEST) for path in folder.rglob(name)]
    for own in {path.parent for path in paths}:  # what is trained in a folder of its own holds that folder
        with suppress(DataError), held_folder(own, LOCK, "fit"):
            for path in paths:
                if path.parent == own:
                    path.unlink(missing_ok=True)


def check_idle_folder(folder: Path) -> None:
    """Refuse a run folder in which another fit is at work.

    Raises:
        DataError: one is.
    """
    with held_folder(folder, LOCK, "fit"):
        pass


def drop_left_overs(folder: Path) -> None:
    """Delete the halves of checkpoints that a killed process left in a folder."""
    for name in (LAST, BEST):
        for path in folder.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)
