"""The model card that every saved model carries as README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffgrm.data.query_sketch import QuerySketch
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.shown import fenced, markdown

# What is counted, and how it is validated, by the split.
COUNTED = {"queries": ("queries", "documents", "judgements", "pairs of a query and a document", "queries held out")}
USUALLY = "users", "items", "events", "events", "by item, history filtered"


def model_card(
    method: str,
    facts: Mapping[str, Any],
    recipe: Recipe,
    example_item: object,
    reader: str = "load",
    example: Sequence[str] | None = None,
) -> str:
    """Markdown with the YAML header that the Hugging Face hub reads: data, metrics, sizes, versions, settings.

    Args:
        method: name of the recommender's class.
        facts: what ``fit`` noted: sizes, split, time, versions; validation metrics and tokeniser report where it has them.
        example_item: an item id for the example.
        reader: the function of diffgrm that reads the folder.
        example: how the folder is loaded and asked, in Python; None: as a recommender is.
    """
    own = recipe.own_classes
    users, items, events, learnt, validated = COUNTED.get(facts["split"], USUALLY)
    lines = [
        "---",
        "library_name: diffgrm",
        "tags: [recommender-system, sequential-recommendation, generative-recommendation, semantic-ids]",
        "---",
        "",
        f"# {method} on {markdown(facts['dataset'])}",
        "",
        "Loads with [diffgrm](https://pypi.org/project/diffgrm/):",
        "",
        *fenced(_example(reader, example_item, recipe) if example is None else "\n".join(example), "python"),
        "",
    ]
    if own:
        classes = ", ".join(f"`{name}`" for name in own)
        lines += [
            f"It uses classes that are not diffgrm's own: {classes}. They have to be importable, and `trust_code=True` "
            "(`--trust-code`) lets their code run: load it only if you trust who made it.",
            "",
        ]
    lines += [
        "## Data",
        "",
        f"- {facts['users']:,} {users}, {facts['items']:,} {items}, {facts['events']:,} {events}; split: "
        f"{markdown(facts['split'])}, of which {facts['training_events']:,} {learnt} were trained on.",
        *([f"- {markdown(reading)}."] if (reading := facts.get("reading")) else []),
        f"- Fitted at {markdown(facts['fitted_at'])} in {facts['fit_seconds']} s ({markdown(facts['machine'])}).",
        *_went_on(facts),
        "",
    ]
    if validation := facts.get("validation"):
        lines += [f"## Validation ({validated})", "", "| metric | value |", "|---|---|"]
        lines += [f"| {markdown(name)} | {value:.4f} |" for name, value in validation.items()] + [""]
    if report := facts.get("tokenizer_report"):
        lines += ["## Semantic IDs", "", "| | |", "|---|---|"]
        lines += [f"| {markdown(name)} | {markdown(value)} |" for name, value in report.items()] + [""]
    lines += ["## Settings", "", *fenced(recipe.to_yaml().rstrip(), "yaml"), ""]
    versions = ", ".join(markdown(f"{name} {number}") for name, number in facts["versions"].items())
    return "\n".join([*lines, "## Versions", "", versions, ""])


def _went_on(facts: Mapping[str, Any]) -> list[str]:
    """What the model went on from, where it did."""
    if (before := facts.get("went_on")) is None:
        return []
    return [
        f"- It went on learning ({before['times']:,} times in all), at last from a model fitted at "
        f"{markdown(before['fitted_at'])} on {before['training_events']:,} events (fingerprint "
        f"{markdown(before['fingerprint'][:12])}); {before['new_items']:,} items came.",
        *_scorer_went_on(facts),
    ]


def _scorer_went_on(facts: Mapping[str, Any]) -> list[str]:
    """What the item scorer learnt that the embedding is made of, where there is one."""
    if (scorer := facts.get("item_scorer")) is None:
        return []
    before, after = (scorer[key]["val_score"] for key in ("validation_before", "validation"))
    alone = f"; of {scorer['fitted']:,} that the first fit learnt from, it is the one that is left"
    return [
        f"- Its item scorer went on before it, for {scorer['epochs']:,} epochs: {before:.4f} on validation before, "
        f"{after:.4f} after (val_score){alone if scorer['fitted'] > 1 else ''}."
    ]


def _example(reader: str, item: object, recipe: Recipe) -> str:
    """How the folder is loaded and asked, in Python."""
    trust = ", trust_code=True" if recipe.own_classes else ""
    lines, event = ["import diffgrm"], repr(item)
    if recipe.events.time_inputs:
        lines.append("from diffgrm.data.histories import HistoryEvent")
        event = f'HistoryEvent({item!r}, time="2030-01-05T21:00:00")'
    lines += ["", f'recommender = diffgrm.{reader}("THIS_FOLDER"{trust})']
    return "\n".join([*lines, f"recommender.recommend([{event}], k=10)"])


def check_facts(facts: Mapping[str, Any]) -> None:
    """Make sure that facts are what ``fit`` notes, so that the model can be saved again.

    Raises:
        ModelFolderError: they are not.
    """
    try:
        if type(facts.get("catalogue_version", 0)) is not int:
            raise TypeError("catalogue_version is no whole number")
        if (sketch := facts.get("asked_in_fit")) is not None:
            QuerySketch.from_dict(sketch)
        model_card("", facts, Recipe(), "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"the facts in the manifest are not what fit notes: {error!r}") from error
