"""The model card that every saved model carries as README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError


def model_card(method: str, facts: Mapping[str, Any], recipe: Recipe, example_item: object, reader: str = "load") -> str:
    """Markdown with the YAML header that the Hugging Face hub reads: data, metrics, sizes, versions, settings.

    Args:
        method: name of the recommender's class.
        facts: what ``fit`` noted: sizes, split, time, versions; validation metrics and tokeniser report where it has them.
        example_item: an item id for the example.
        reader: the function of diffgrm that reads the folder.
    """
    own = recipe.own_classes
    lines = [
        "---",
        "library_name: diffgrm",
        "tags: [recommender-system, sequential-recommendation, generative-recommendation, semantic-ids]",
        "---",
        "",
        f"# {method} on {facts['dataset']}",
        "",
        "Loads with [diffgrm](https://pypi.org/project/diffgrm/):",
        "",
        "```python",
        "import diffgrm",
        "",
        f'recommender = diffgrm.{reader}("THIS_FOLDER"{", trust_code=True" if own else ""})',
        f"recommender.recommend([{example_item!r}], k=10)",
        "```",
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
        f"- {facts['users']:,} users, {facts['items']:,} items, {facts['events']:,} events; split: {facts['split']}, "
        f"of which {facts['training_events']:,} events were trained on.",
        f"- Fitted at {facts['fitted_at']} in {facts['fit_seconds']} s ({facts['machine']}).",
        "",
    ]
    if validation := facts.get("validation"):
        lines += ["## Validation (by item, history filtered)", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in validation.items()] + [""]
    if report := facts.get("tokenizer_report"):
        lines += ["## Semantic IDs", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in report.items()] + [""]
    lines += ["## Settings", "", "```yaml", recipe.to_yaml().rstrip(), "```", ""]
    lines += ["## Versions", "", ", ".join(f"{name} {number}" for name, number in facts["versions"].items()), ""]
    return "\n".join(lines)


def check_facts(facts: Mapping[str, Any]) -> None:
    """Make sure that facts are what ``fit`` notes, so that the model can be saved again.

    Raises:
        ModelFolderError: they are not.
    """
    try:
        if type(facts.get("catalogue_version", 0)) is not int:
            raise TypeError("catalogue_version is no whole number")
        model_card("", facts, Recipe(), "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"the facts in the manifest are not what fit notes: {error!r}") from error
