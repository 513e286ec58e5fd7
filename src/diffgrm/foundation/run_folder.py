"""Run folders: the checkpoints of a fit, of whatever is trained in it, while it is not over."""

from __future__ import annotations

from pathlib import Path

LAST, BEST = "last.ckpt", "best.ckpt"


def holds_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from: of the network, or of what is trained before it, in a folder of its own."""
    return next(folder.rglob(LAST), None) is not None


def drop_checkpoints(folder: Path) -> None:
    """Delete all checkpoints, once what they are for is saved; the logs stay."""
    for name in (LAST, BEST):
        for path in folder.rglob(name):
            path.unlink()


def drop_left_overs(folder: Path) -> None:
    """Delete the halves of checkpoints that a killed process left in a folder."""
    for name in (LAST, BEST):
        for path in folder.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)
