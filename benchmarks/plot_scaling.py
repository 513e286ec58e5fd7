"""Plot of a scaling run: python benchmarks/plot_scaling.py docs/results/speed/scaling.json docs/results/scaling.svg"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

LABELS = {
    "n_digits": "digits n, one a step",
    "n_digits, 4 steps, finish=items": "digits n, 4 steps, finish=items",
    "n_digits, catalogue_beam": "digits n, catalogue_beam",
    "n_digits, one pass": "digits n, one pass",
    "beam": "beam W",
    "history": "items of history S",
    "items": "items of the catalogue I",
}


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text())
    figure, axes = plt.subplots(1, len(LABELS), figsize=(3.1 * len(LABELS), 3.1), sharey=True, layout="constrained")
    for axis, (factor, label) in zip(axes, LABELS.items(), strict=True):
        points = [(c["value"], c["ours"]["ms_per_user"]) for c in result["cases"] if c["factor"] == factor and "ours" in c]
        exponent = next(c["fitted_exponent"] for c in result["cases"] if c["factor"] == factor and "fitted_exponent" in c)
        x, y = zip(*points, strict=True)
        axis.plot(x, y, "o-", color="#0072b2")
        axis.set(xscale="log", yscale="log", xlabel=label, title=f"time grows as x^{exponent:.2f}")
        axis.set_xticks(x, [f"{v:,}" if v < 10_000 else f"10^{len(str(v)) - 1}" for v in x])
        axis.minorticks_off()
        axis.grid(True, alpha=0.3)
    ticks = [t for t in (20, 50, 100, 200, 500, 1000, 2000) if axes[0].get_ylim()[0] <= t <= axes[0].get_ylim()[1]]
    axes[0].set_yticks(ticks, [f"{t:,}" for t in ticks])
    axes[0].set_ylabel("milliseconds a user")
    figure.savefig(sys.argv[2])


if __name__ == "__main__":
    main()
