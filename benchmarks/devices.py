"""What a GPU is worth: training steps and lists of each method, on every device in turn.

    python benchmarks/devices.py DATA/amazon-beauty --devices cpu cuda --json docs/results/speed/devices.json
    python benchmarks/devices.py DATA/amazon-beauty llada-rec mdgr --change training.batch_size=1024

Each recipe is fitted on a sample of the users, so large that an epoch has about ``--steps`` steps: the first epoch makes
kernels and tables, the later ones are timed, each with a validation of 16 users. Then the model moves from device to
device, and lists of ``--users`` users are timed, alternating. Precision is what training takes by itself: bf16 on GPUs,
else 32 bits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from diffgrm import InteractionDataset, Recipe, leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.foundation.registry import resolve
from diffgrm.recommenders.base import Recommender
from turns import keep
from workload import dataset_of

RECIPES = ["rpg", "h2rec", "diqdiff", "sprint", "llada-rec", "maskgr", "mdgr", "best", "generative-best"]
EPOCHS = 3


def sample(dataset: InteractionDataset, recipe: Recipe, steps: int, seed: int) -> InteractionDataset:
    """So many users that an epoch of the recipe has about ``steps`` steps, with all items."""
    lengths = np.diff(dataset.events.offsets) - 3  # training events after a user's first, each a target
    if recipe.to_dict().get("objective", {}).get("targets") == "newest":
        lengths = np.ones_like(lengths)  # one sequence a user
    order = np.random.default_rng(seed).permutation(len(lengths))
    enough = int(np.searchsorted(np.maximum(lengths[order], 0).cumsum(), steps * recipe.training.batch_size)) + 1
    users = pl.Series("user_id", dataset.users.ids(np.sort(order[:enough])))
    events = dataset.event_table().filter(pl.col("user_id").is_in(users.implode()))
    return InteractionDataset.from_tables(events, dataset.item_table, name=dataset.name)


def fitted(recipe: Recipe, dataset: InteractionDataset, device: str) -> tuple[Recommender, dict[str, Any]]:
    """A short fit on a device, and what its steps took."""
    accelerator = "cpu" if device == "cpu" else "gpu"
    recommender = resolve("recommender", recipe.recommender)(recipe.override([f"training.accelerator={accelerator}"]))
    if accelerator == "gpu":
        torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        recommender.fit(
            dataset,
            run_folder=Path(folder) / "run",
            progress=False,
            watch=lambda epoch, score: ends.append(time.perf_counter()),
        )
    steps = recommender.facts["steps"] / EPOCHS
    ms = [1e3 * float(seconds) / steps for seconds in np.diff(ends)]
    found = {
        "ms_a_step": round(float(np.median(ms)), 2),
        "steps": round(steps),
        "timed_epochs": [round(each, 2) for each in ms],
    }
    if accelerator == "gpu":
        found["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return recommender, found


def lists(
    recommender: Recommender, devices: list[str], histories: dict[str, list[str]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds a list on each device, of every round."""
    seconds: dict[str, list[float]] = {device: [] for device in devices}
    for number in range(rounds + 1):
        for device in devices:
            recommender.to(device)
            recommender.recommend(dict(list(histories.items())[:8]), k=10)  # makes tables there
            started = time.perf_counter()
            recommender.recommend(histories, k=10)
            if number:
                seconds[device].append(1e3 * (time.perf_counter() - started) / len(histories))
    return seconds


def measured(name: str, dataset: InteractionDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """One recipe on all devices."""
    short = [
        f"training.epochs={EPOCHS}",
        "training.validate_every=1",
        "training.patience=9",
        "training.validation_users=16",
    ]
    recipe = Recipe.preset(name).override([*short, *arguments.change])
    some = sample(dataset, recipe, arguments.steps, recipe.seed)
    found: dict[str, Any] = {"batch": recipe.training.batch_size}
    recommender: Recommender | None = None
    for device in arguments.devices:
        recommender, found[device] = fitted(recipe, some, device)
        print(name, device, found[device], flush=True)
    assert recommender is not None
    test = leave_one_out(dataset).test
    chosen = np.random.default_rng(0).choice(len(test), min(arguments.users, len(test)), replace=False)
    histories = {str(row): dataset.items.ids(test.histories[row]) for row in chosen}
    for device, ms in lists(recommender, arguments.devices, histories, arguments.rounds).items():
        quartiles = [round(float(q), 3) for q in np.percentile(ms, [25, 75])]
        found[device] |= {"ms_a_list": round(float(np.median(ms)), 3), "ms_a_list_quartiles": quartiles}
        print(name, device, found[device], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    parser.add_argument("--change", action="append", default=[], help="of all recipes, such as training.precision=32")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = dataset_of(arguments.data)
    content: dict[str, Any] = {
        "command": f"python benchmarks/devices.py DATA/{arguments.data.name} {' '.join(arguments.recipes)} --threads "
        f"{arguments.threads} {' '.join(f'--change {change}' for change in arguments.change)}",
        "machine": machine(),
        "found": {},
    }
    for name in arguments.recipes:
        content["found"][name] = measured(name, dataset, arguments)
        keep(content, arguments.json)  # as far as it has come
    print(json.dumps(content["found"], indent=1))


if __name__ == "__main__":
    main()
