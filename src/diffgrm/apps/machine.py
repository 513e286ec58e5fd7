"""What figures were made on, for result files."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Commit of the source tree (None where this is not one), processor, GPU, versions."""
    try:
        installed = version("diffgrm")
    except PackageNotFoundError:
        installed = "source tree"
    return {
        "commit": _commit(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "diffgrm": installed,
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or not (Path(top) / "src" / "diffgrm").is_dir():  # installed into somebody else's repository
        return None
    changed = git("status", "--porcelain", "--", str(Path(top) / "src"))
    return f"{git('rev-parse', 'HEAD')}{' with changes' if changed else ''}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
