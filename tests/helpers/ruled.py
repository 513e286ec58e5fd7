"""Lists under rules by the book: one search of all items, and item by item what the rules say."""

from __future__ import annotations

import polars as pl


def whole_ranking(recommender, history, only=None):
    """All items that the user may get and their scores, best first."""
    table = recommender.recommend([history], len(recommender.items), only=only)
    return dict(table.select("item_id", "score").iter_rows())


def enumerated(rows, ranking, history, k, rules):
    """The ids of the list, by reading the whole ranking; for rules (a mapping) without diversity and boosts.

    Args:
        rows: of the item table.
        ranking: ids of all items that the user may get and that meet the filter, best first.
    """
    rows = {row["item_id"]: row for row in rows}

    def may_be_pinned(item):
        return meets(rows[item], rules.get("where", {})) and (item not in history or rules.get("pin_seen"))

    pins, last = {}, k + 1
    wanted = [(place, item) for place, item in sorted(rules.get("pins", {}).items()) if may_be_pinned(item)]
    for place, item in wanted[:k][::-1]:  # from the end, each before those behind it
        last = min(place, last - 1)
        pins[last] = item
    rest = [item for item in ranking if item not in pins.values()]
    minimum = rules.get("minimum", {"count": 0})

    def of_set(item):
        named = item in minimum.get("items", ())
        return named or ("where" in minimum and meets(rows[item], minimum["where"]))

    caps, chosen = rules.get("caps", {}), list(pins.values())
    needed = min(minimum["count"] - sum(map(of_set, chosen)), k - len(chosen))
    held = []
    for item in rest:
        if len(held) < needed and of_set(item) and fits(rows, chosen + held, item, caps):
            held.append(item)
    more = []
    for item in rest:
        if len(chosen) + len(held) + len(more) < k and item not in held and fits(rows, chosen + held + more, item, caps):
            more.append(item)
    order = sorted(held + more, key=ranking.index)
    found = []
    while order or pins:
        place = len(found) + 1
        if place in pins:
            found.append(pins.pop(place))
        elif order:
            found.append(order.pop(0))
        else:
            found.append(pins.pop(min(pins)))
    return found


def fits(rows, chosen, item, caps):
    """Whether an item may come to others."""
    for column, most in caps.items():
        value = rows[item][column]
        if value is not None and sum(rows[other][column] == value for other in chosen) >= most:
            return False
    return True


def meets(row, where):
    """Whether a row meets all conditions."""
    for column, condition in where.items():
        value = row[column]
        if value is None:
            return False
        if not condition.get("min", value) <= value <= condition.get("max", value):
            return False
        if "in" in condition and value not in condition["in"]:
            return False
    return True


def stocked(table: pl.DataFrame) -> pl.DataFrame:
    """An item table with a stock, and with a series that only some items have."""
    number = pl.int_range(pl.len())
    series = pl.when(number % 3 > 0).then(number % 5)
    return table.with_columns((number * 7 % 11).alias("stock"), series.alias("series"))
