"""The command line: diffgrm items add, update, remove, restore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffgrm.apps.cli.shared import Model, TrustCode, as_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffgrm.recommenders import Recommender

items_app = typer.Typer(help="Change what a saved model may recommend, without training: add, update, remove, restore.")
Vectors = Annotated[
    Path | None,
    typer.Option(
        help="Where the embedding is precomputed: the .npy or .parquet file with the items' vectors; where it is a "
        "sentence encoder of a folder: that folder."
    ),
]
READ = {"precomputed": "path", "sentence_transformer": "model"}  # embeddings that read vectors or weights, and where from
ItemIds = Annotated[list[str], typer.Argument(help="Item ids.")]


@items_app.command()
def add(
    model: Model,
    items: Annotated[Path, typer.Option(help="New items: item_id, text (parquet, csv, jsonl...).")],
    vectors: Vectors = None,
    trust_code: TrustCode = False,
) -> None:
    """Embed new items, give them free semantic IDs, and recommend them from now on."""
    _change_items(model, trust_code, lambda recommender: reading(recommender, vectors).add_items(items))


@items_app.command()
def update(
    model: Model,
    items: Annotated[Path, typer.Option(help="Known items with their new rows.")],
    semantic_ids: Annotated[
        Literal["keep", "move"],
        typer.Option(help="keep: semantic IDs stay (a text was corrected); move: they are made anew from the new text."),
    ],
    vectors: Vectors = None,
    trust_code: TrustCode = False,
) -> None:
    """Change the rows of known items."""
    _change_items(model, trust_code, lambda recommender: reading(recommender, vectors).update_items(items, semantic_ids))


@items_app.command()
def remove(model: Model, ids: ItemIds, trust_code: TrustCode = False) -> None:
    """Recommend these items no more; histories may still hold them."""
    _change_items(model, trust_code, lambda recommender: recommender.remove_items(list(map(as_text, ids))))


@items_app.command()
def restore(model: Model, ids: ItemIds, trust_code: TrustCode = False) -> None:
    """Recommend removed items again."""
    _change_items(model, trust_code, lambda recommender: recommender.restore_items(list(map(as_text, ids))))


def reading(recommender: Recommender, vectors: Path | None) -> Recommender:
    """The recommender with the file or folder that its embedding reads."""
    if vectors is None:
        return recommender
    parts = recommender.recipe.embedding.with_paths("embedding")
    place = next((f"{path}.{READ[part.name]}" for path, part in parts if part.name in READ), "embedding.path")
    return recommender.override([f"{place}={json.dumps(str(vectors))}"])


def _change_items(model: Path, trust_code: bool, change: Callable[[Recommender], Recommender]) -> None:
    from diffgrm.foundation import model_folder
    from diffgrm.foundation.terminal import say
    from diffgrm.recommenders import load

    folder = model_folder.place(model)  # a link may be turned to another model meanwhile
    after = model_folder.change(
        folder, lambda: change(load(folder, trust_code=trust_code)), lambda changed: changed.save(folder)
    )
    version, recommendable = after.facts["catalogue_version"], int(after.recommendable.sum())
    say(f"Catalogue version {version} of {model}: {len(after.items):,} items, {recommendable:,} of them recommended.")
