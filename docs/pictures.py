"""What every picture of the docs is drawn with: one style, panels side by side, svg files that come out the same again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Pictures = Mapping[str, Callable[[], Figure]]
INK, ACCENT, SECOND, GREY = "#1b1f24", "#0072b2", "#d55e00", "#8a939c"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "diffgrm",
    "svg.fonttype": "none",
}


def panels(*widths: float, height: float = 2.3) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side, of these widths in inches."""
    figure, axes = plt.subplots(1, len(widths), figsize=(sum(widths), height), width_ratios=widths, layout="constrained")
    return figure, np.atleast_1d(axes).tolist()


def draw(picture: Callable[[], Figure], path: Path) -> Path:
    """Draw a picture into an svg file."""
    with plt.rc_context(STYLE):
        figure = picture()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axis in figure.axes:  # places to 4 decimals: the layout's last bits differ from run to run, and name clips
            axis.set_position(tuple(round(value, 4) for value in axis.get_position().bounds))
        figure.savefig(path, dpi=150, metadata={"Date": None})
        plt.close(figure)
    return path


def draw_named(pictures: Pictures, folder: Path, page: str) -> None:
    """Read the command line, draw the pictures of a page that it names, or all of them."""
    parser = argparse.ArgumentParser(description=f"Draw the pictures of {page}.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(pictures)}; none: all")
    parser.add_argument("--out", type=Path, default=folder)
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in pictures]:
        parser.error(f"no picture is called {', '.join(unknown)}; there are {', '.join(pictures)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or pictures:
        draw(pictures[name], given.out / f"{name}.svg")
