"""A generated storefront whose shoppers follow known rules, so right answers are known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.foundation.schema import Columns, DataError

DEPARTMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # department: (brands, product kinds in the order in which shoppers buy them)
    "Coffee": (
        ("Aroma", "Crema", "Moka", "Roast & Co"),
        ("espresso machine", "coffee grinder", "arabica beans", "milk jug", "descaler"),
    ),
    "Cycling": (
        ("Velo", "Ridgeline", "Pedalis", "Tarmac"),
        ("road bike", "cycling helmet", "bike lock", "front light", "chain oil"),
    ),
    "Photography": (
        ("Lumen", "Opticus", "Shutterly", "Clarion"),
        ("mirrorless camera", "portrait lens", "memory card", "camera bag", "tripod"),
    ),
    "Camping": (
        ("Fjell", "Outpost", "Timberline", "Nomad"),
        ("dome tent", "sleeping bag", "gas stove", "head torch", "water filter"),
    ),
    "Painting": (
        ("Pigmenta", "Atelier", "Canvasso", "Umber"),
        ("easel", "stretched canvas", "oil paint set", "brush set", "varnish"),
    ),
    "Baking": (
        ("Crumb", "Patissa", "Ovenly", "Flourish"),
        ("stand mixer", "cake tin", "bread flour", "piping bag", "cooling rack"),
    ),
    "Guitar": (
        ("Stringer", "Fretwell", "Sonora", "Plectra"),
        ("acoustic guitar", "guitar case", "steel strings", "clip tuner", "capo"),
    ),
    "Gardening": (
        ("Verdant", "Rooted", "Greenhand", "Trellis"),
        ("raised bed", "potting soil", "tomato seeds", "watering can", "pruning shears"),
    ),
}
COLOURS = ("red", "blue", "black")


@dataclass(frozen=True)
class ToyWorld:
    """The storefront and its rules.

    Attributes:
        dataset: users, items with brands, departments and titles, and what was bought in which order.
        noise: share of purchases that follow no rule.
    """

    dataset: InteractionDataset
    noise: float

    def answers(self, history: Sequence[str]) -> list[str]:
        """The items that the rules allow after a history: the next kind of the department, of the same brand, any
        colour; after the last kind, the first kind of the next department, of the brand in the same place."""
        table = self.dataset.item_table
        position = int(self.dataset.items.positions([history[-1]])[0])
        if position < 0:
            raise DataError(f"{history[-1]!r} is not an item of the storefront")
        last = table.row(position, named=True)
        names = list(DEPARTMENTS)
        brands, kinds = DEPARTMENTS[last["department"]]
        place, step = brands.index(last["brand"]), kinds.index(last["kind"])
        if step + 1 < len(kinds):
            department, kind = last["department"], kinds[step + 1]
        else:
            department = names[(names.index(last["department"]) + 1) % len(names)]
            kind = DEPARTMENTS[department][1][0]
        brand = DEPARTMENTS[department][0][place]
        right = (pl.col("department") == department) & (pl.col("kind") == kind) & (pl.col("brand") == brand)
        return table.filter(right)[Columns.ITEM].to_list()


def toy_world(users: int = 800, longest: int = 10, noise: float = 0.1, seed: int = 0) -> ToyWorld:
    """A storefront of 480 items in which the next purchase follows from the last one.

    Args:
        users: shoppers; each buys between 4 and ``longest`` items.
        longest: most purchases of a shopper, at least 4.
        noise: probability that a purchase is any item at all.
        seed: of all that is drawn.

    Raises:
        DataError: ``longest`` below 4 or no users.
    """
    if longest < 4 or users < 1:
        raise DataError(f"a toy world needs at least 1 user and longest 4, found users={users}, longest={longest}")
    generator = np.random.default_rng(seed)
    rows = [
        (f"{brand} {kind}, {colour}", department, brand, kind, colour)
        for department, (brands, kinds) in DEPARTMENTS.items()
        for kind in kinds
        for brand in brands
        for colour in COLOURS
    ]
    items = pl.DataFrame(rows, [Columns.TITLE, "department", "brand", "kind", "colour"], orient="row").with_columns(
        (pl.lit("item ") + pl.int_range(len(rows)).cast(pl.String)).alias(Columns.ITEM),
        pl.format("{}. Brand: {}. Department: {}.", Columns.TITLE, "brand", "department").alias(Columns.TEXT),
    )
    n_brands, n_kinds, n_colours = 4, 5, len(COLOURS)

    def item(department: int, kind: int, brand: int) -> int:
        return ((department * n_kinds + kind) * n_brands + brand) * n_colours + int(generator.integers(n_colours))

    events = []
    for user in range(users):
        department, kind = int(generator.integers(len(DEPARTMENTS))), int(generator.integers(n_kinds))
        brand = int(generator.integers(n_brands))
        for time in range(int(generator.integers(4, longest + 1))):
            if generator.random() < noise:
                bought = int(generator.integers(len(rows)))
                place = bought // n_colours
                department, kind, brand = place // n_brands // n_kinds, place // n_brands % n_kinds, place % n_brands
            else:
                bought = item(department, kind, brand)
            events.append((f"user {user}", f"item {bought}", time))
            kind += 1
            if kind == n_kinds:
                department, kind = (department + 1) % len(DEPARTMENTS), 0
    table = pl.DataFrame(events, [Columns.USER, Columns.ITEM, Columns.TIMESTAMP], orient="row")
    return ToyWorld(InteractionDataset.from_tables(table, items, name="toy storefront"), noise)
