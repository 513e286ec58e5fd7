"""Run by the Python of an environment that has the wheel and its core dependencies: what works there, as JSON.

Called with a folder to write into. Prints {"home": ..., "metrics": {...}, "missing": {extra: message}}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def used(folder: Path) -> dict[str, object]:
    """Fit the toy world, measure, save, load and recommend."""
    import diffgrm

    dataset = diffgrm.toy_world(users=60, seed=1).dataset
    recipe = diffgrm.Recipe.preset(
        "best",
        [
            "embedding.width=16",
            "tokenizer.n_digits=3",
            "tokenizer.codebook_size=16",
            "model.width=16",
            "model.feed_forward=16",
            "training.epochs=2",
            "training.validate_every=1",
            "training.batch_size=64",
        ],
    )
    fitted = diffgrm.HybridRecommender(recipe).fit(dataset, progress=False)
    split = diffgrm.leave_one_out(dataset)
    metrics = diffgrm.evaluate(fitted, split.test, dataset.items, split.item_counts).metrics
    loaded = diffgrm.load(fitted.save(folder / "model"))
    asked = [["item 0", "item 15"]]
    assert loaded.recommend(asked, k=5)["item_id"].equals(fitted.recommend(asked, k=5)["item_id"])
    return {"home": diffgrm.__file__, "version": diffgrm.__version__, "metrics": metrics}


def sentence(folder: Path) -> None:
    """Texts by a sentence transformer."""
    import polars as pl

    from diffgrm.foundation.registry import resolve

    table = pl.DataFrame({"item_id": ["a"], "text": ["a"]})
    resolve("embedding", "sentence_transformer")(model="org/name").fit(table).encode(table)


def multilingual(folder: Path) -> None:
    """Texts by the Universal Sentence Encoder."""
    import polars as pl

    from diffgrm.foundation.registry import resolve

    table = pl.DataFrame({"item_id": ["a"], "text": ["a"]})
    resolve("embedding", "universal_sentence_encoder")().fit(table).encode(table)


def tensorboard(folder: Path) -> None:
    """A logger."""
    import diffgrm

    small = ["model.width=8", "model.heads=1", "training.epochs=1", "training.loggers=[tensorboard]"]
    recipe = diffgrm.Recipe(recommender="sasrec").override(small)
    diffgrm.SASRecRecommender(recipe).fit(diffgrm.toy_world(users=10).dataset, progress=False)


def report(folder: Path) -> None:
    """Figures."""
    from diffgrm.apps.reporting.figures import plot

    plot((1, 1), lambda figure, plt: None)


def pandas(folder: Path) -> None:
    """A compressed table that pyarrow reads."""
    import diffgrm

    (folder / "table.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    diffgrm.read_table(folder / "table.csv.zst")


def serve(folder: Path) -> None:
    """The server."""
    from diffgrm.apps.cli.main import app

    app(["serve", str(folder / "model")], standalone_mode=False)


def documents(folder: Path) -> None:
    """BM25."""
    import polars as pl

    from diffgrm.recommenders.searchers import BM25

    BM25(pl.DataFrame({"doc_id": ["a"], "text": ["a"]}))


def onnx(folder: Path) -> None:
    """An export."""
    import diffgrm

    diffgrm.export_onnx(diffgrm.load(folder / "model"), folder / "export")


def ray(folder: Path) -> None:
    """A batch job."""
    import polars as pl

    from diffgrm.apps.cli.main import app

    pl.DataFrame({"user_id": ["u"], "item_id": ["item 0"], "timestamp": [1]}).write_parquet(folder / "users.parquet")
    arguments = ["--interactions", str(folder / "users.parquet"), "--out", str(folder / "lists")]
    app(["recommend-batch", str(folder / "model"), *arguments], standalone_mode=False)


def tune(folder: Path) -> None:
    """A search."""
    import diffgrm

    recipe = diffgrm.Recipe(recommender="item_knn")
    diffgrm.tune(recipe, diffgrm.toy_world(users=10).dataset, {"model.decay": [0.2, 0.9]}, 1, out=folder / "search")


NEEDS = (
    sentence,
    multilingual,
    tensorboard,
    report,
    pandas,
    serve,
    documents,
    onnx,
    ray,
    tune,
)  # by the names of their extras


def missing(folder: Path) -> dict[str, str]:
    """What is said where the package of an extra is not installed."""
    from diffgrm.foundation.schema import MissingExtraError

    found = {}
    for needs in NEEDS:
        try:
            needs(folder)
            found[needs.__name__] = "it works"
        except MissingExtraError as error:
            found[needs.__name__] = str(error)
        except Exception as error:  # noqa: BLE001  (told, not hidden)
            found[needs.__name__] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps({**used(place), "missing": missing(place)}))  # noqa: T201
