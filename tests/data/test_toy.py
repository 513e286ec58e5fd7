from __future__ import annotations

import numpy as np
import pytest

from diffgrm import toy_world
from diffgrm.data.toy import COLOURS, DEPARTMENTS


def histories(world):
    dataset = world.dataset
    return [dataset.items.ids(dataset.events[row]) for row in range(dataset.n_users)]


def share_of_right_purchases(world):
    steps = [row[: i + 1] for row in histories(world) for i in range(len(row))]
    right = [step[-1] in world.answers(step[:-1]) for step in steps if len(step) > 1]
    return np.mean(right)


@pytest.fixture(scope="module")
def strict():
    return toy_world(users=60, noise=0, seed=3)


def test_without_noise_every_purchase_follows_the_rules(strict):
    assert share_of_right_purchases(strict) == 1


def test_noise_breaks_the_rules_about_as_often_as_asked():
    world = toy_world(users=150, noise=0.3, seed=4)
    assert world.noise == 0.3
    assert 0.62 < share_of_right_purchases(world) < 0.78


def titles_after(world, title):
    table = world.dataset.item_table
    item = table.filter(table["title"] == title)["item_id"].item()
    return table.filter(table["item_id"].is_in(world.answers(["item 5", item])))["title"].to_list()


def test_answers_are_the_next_kind_of_the_same_brand_in_every_colour(strict):
    assert titles_after(strict, "Moka coffee grinder, red") == [f"Moka arabica beans, {colour}" for colour in COLOURS]


def test_after_the_last_kind_the_next_department_begins(strict):
    assert titles_after(strict, "Moka descaler, black") == [f"Pedalis road bike, {colour}" for colour in COLOURS]


def test_after_the_last_department_the_first_begins(strict):
    assert titles_after(strict, "Plectra capo, blue") == [f"Trellis raised bed, {colour}" for colour in COLOURS]
    assert titles_after(strict, "Trellis pruning shears, blue") == [f"Roast & Co espresso machine, {c}" for c in COLOURS]


def test_every_item_has_three_answers(strict):
    items = strict.dataset.items.series
    assert all(len(strict.answers([item])) == len(COLOURS) for item in items)


def test_texts_are_readable_and_unique(strict):
    texts = strict.dataset.item_table["text"].to_list()
    assert texts[0] == "Aroma espresso machine, red. Brand: Aroma. Department: Coffee."
    assert len(set(texts)) == len(texts) == sum(len(b) * len(k) for b, k in DEPARTMENTS.values()) * len(COLOURS) == 480


def test_no_brand_or_kind_is_in_two_departments():
    brands = [brand for brands, _ in DEPARTMENTS.values() for brand in brands]
    kinds = [kind for _, kinds in DEPARTMENTS.values() for kind in kinds]
    assert len(set(brands)) == len(brands) and len(set(kinds)) == len(kinds)


def test_the_same_seed_makes_the_same_world():
    first, second, other = (toy_world(users=40, seed=seed).dataset for seed in (1, 1, 2))
    assert first.event_table().equals(second.event_table()) and first.item_table.equals(second.item_table)
    assert not first.event_table().equals(other.event_table()) and first.item_table.equals(other.item_table)


def test_users_and_history_lengths_are_as_asked():
    lengths = toy_world(users=200, longest=6).dataset.events.lengths
    assert len(lengths) == 200 and (lengths.min(), lengths.max()) == (4, 6)


def test_every_colour_is_bought(strict):
    bought = strict.dataset.item_table["colour"].gather(strict.dataset.events.values)
    assert set(bought) == set(COLOURS) and bought.value_counts()["count"].min() > 0.25 * len(bought)
