"""Model folders of the format before this one (2), read as if they had been saved today.

They were saved when scores of items were settings of a decoder. Nothing in them is changed: a copy with today's
names is made in a temporary folder and read from there. Save the model again to have it in the new format.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file, save_file

from diffgrm.foundation.manifest import FORMAT_VERSION
from diffgrm.foundation.model_folder import STRANGE
from diffgrm.foundation.saved_tables import read_table, write_table
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import State, regular
from diffgrm.foundation.yaml_text import LONGEST, read_yaml

NAMES = {  # of a network's tensors: what they were called, in order, and what they are called
    r"codes": "digits.codes",
    r"position": "encoder.position",
    r"ids": "item.id.ids",
    r"item\.(\d.*)": r"item.sid.layers.\1",
    r"item_norm\.(.*)": r"item.sid.norm.\1",
    r"text\.0\.(.*)": r"item.text.linear.\1",
    r"text\.1\.(.*)": r"item.text.norm.\1",
    r"compose\.3\.(.*)": r"item.sid.norm.\1",
    r"compose\.(\d.*)": r"item.sid.layers.\1",
    r"encoder\.(\d.*)": r"encoder.layers.\1",
    r"(?:encoder_)?norm\.(.*)": r"encoder.norm.\1",
    r"decoder\.(\d.*)": r"decoder.layers.\1",
    r"decoder_norm\.(.*)": r"decoder.norm.\1",
}


@contextmanager
def as_new(folder: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """A folder in today's format with what a model folder of this format or the one before holds."""
    if manifest["format_version"] == FORMAT_VERSION:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        new = Path(temporary)
        for name in manifest["files"]:
            shutil.copyfile(folder / name, new / name)
        try:
            _convert(new, manifest["facts"])
        except STRANGE as error:
            raise ModelFolderError(
                f"{folder} was saved by an older diffgrm and does not hold what its format says: {error!r}; fit and save "
                "it again"
            ) from error
        yield new


def _convert(folder: Path, facts: dict[str, Any]) -> None:
    path = folder / "recipe.yaml"
    old = read_yaml(regular(path, LONGEST).read_text(encoding="utf-8"))
    new = recipe_of_format_2(old)
    path.write_text(yaml.safe_dump(new, sort_keys=False, allow_unicode=True), encoding="utf-8")
    items = folder / "items.parquet"
    write_table(read_table(items).rename({"_offered": "_recommendable"}), items)
    if (texts := folder / "vectors.safetensors").is_file():  # of text_knn, beside the name that others had
        texts.rename(folder / "text_vectors.safetensors")
    if (neighbours := folder / "co_occurrence.safetensors").is_file():
        _split_co_occurrence(neighbours, folder)
    if (weights := folder / "model.safetensors").is_file():
        _rename_weights(weights, old, folder, facts["items"])


def recipe_of_format_2(old: dict[str, Any]) -> dict[str, Any]:
    """A recipe of the format before in today's words.

    Items are learnt by ``objective: joint``, and what a decoder said of their scores stands in ``item_scoring``. A method
    that learnt items beside digits is a ``hybrid`` now, which keeps its model and decoding.
    """
    new = {section: dict(value) if isinstance(value, dict) else value for section, value in old.items()}
    method, loss = new["recommender"], new.pop("loss", None)
    if method in ("sasrec", "sid_sasrec"):
        if method == "sid_sasrec":
            new["model"] = new["model"] | {"branches": [{"name": "sid", "input_scale": False}]}
        return new | {"objective": {"name": "next_item"}}
    if loss is None:
        return new
    left_to_right = method == "autoregressive"
    digits: dict[str, Any] = {"name": "left_to_right" if left_to_right else "diffusion"}
    digits |= {"label_smoothing": loss["label_smoothing"]} | ({} if left_to_right else {"reduction": loss["reduction"]})
    item_loss, decoding = new.pop("item_loss", {}), new["decoding"]
    scoring = {
        "vectors": {},
        "co_occurrence": {"weight": decoding.pop("co_occurrence", 0.0)},
        "new_items": {"weight": decoding.pop("new_items", 0.0)},
    }
    if not loss["item_weight"]:
        return new | {"objective": digits}
    joint = {"name": "joint", "digits": digits, "item_weight": loss["item_weight"], "digit_fraction": loss["share"]}
    if method in ("diffgrm", "autoregressive", "one_pass"):
        new["recommender"] = "hybrid"
    return new | {"objective": joint, "item_loss": item_loss, "item_scoring": scoring}


def _split_co_occurrence(path: Path, folder: Path) -> None:
    """One file held both who goes with whom, and from whom new items borrow."""
    state = State.load(path)
    path.unlink()
    arrays, facts = state.arrays, {"items": state.facts["items"]}
    lenders = {part: arrays[f"lenders.{part}"] for part in ("data", "indices", "indptr")}
    State({"has_events": arrays["own"], **lenders}, facts).save(folder / "text_neighbours.safetensors")
    similarity = {part: arrays[f"similarity.{part}"] for part in ("data", "indices", "indptr")}
    State(similarity, facts).save(folder / "scorer-co_occurrence.safetensors")


def _rename_weights(path: Path, recipe: dict[str, Any], folder: Path, n_items: int) -> None:
    """Tensors under today's names, and the sizes that the data decided in the header."""
    old = load_file(path)
    plain = recipe["recommender"] == "sasrec"
    new = {_renamed("ids" if plain and name == "codes" else name): tensor for name, tensor in old.items()}
    sizes = {"n_items": n_items}
    if (sids := folder / "semantic_ids.safetensors").is_file():
        state = State.load(sids)
        sizes |= {"n_digits": state.arrays["codes"].shape[1], "codebook_size": state.facts["codebook_size"]}
    if (text := new.get("item.text.linear.weight")) is not None:
        sizes["text_width"] = text.shape[1]
    save_file(new, path, metadata={"sizes": json.dumps(sizes)})


def _renamed(name: str) -> str:
    for pattern, replacement in NAMES.items():
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return name
