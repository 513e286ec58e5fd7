"""encode_history and denoise as ONNX, in a folder that is used without PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.export import Dim

from diffgrm.foundation import model_folder
from diffgrm.foundation.schema import Columns, DiffGRMError, MissingExtraError, ModelFolderError, RecipeError, bullet_list
from diffgrm.foundation.storage import State
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.sid_network import Memory
from diffgrm.recommenders.base import RECIPE, Recommender
from diffgrm.recommenders.card import model_card
from diffgrm.recommenders.diffgrm import DiffGRMRecommender
from diffgrm.runtime_onnx.network import DENOISE, ENCODE_HISTORY, Network
from diffgrm.runtime_onnx.recommender import CO_OCCURRENCE, ITEMS, OFFERED, SIDS, VECTORS

LARGEST_FILE = 2**31 - 2**20  # bytes of weights that a single ONNX file holds; more go into a file beside it
# What the NumPy decoders of diffgrm.runtime_onnx do; steps may also be the number of digits.
DECODING: dict[str, dict[str, tuple[Any, ...]]] = {
    "any_order_beam": {
        "steps": (None,),
        "threshold": (None,),
        "order": ("confidence", "fixed"),
        "merge": ("best_path",),
        "constrained": (True,),
        "finish": ("digits",),
    },
    "item_proposals": {},
}


class EncodeHistory(nn.Module):
    """``encode_history`` with the memory as arrays."""

    def __init__(self, network: DiffGRM) -> None:
        super().__init__()
        self.network = network

    def forward(self, vectors: Tensor, places: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [M, d], places [B, S], valid [B, S] -> keys and values [L, B, heads, S, d/heads] of L layers, and the
        vectors [B, d] of users."""
        memory = self.network.encode_history(vectors, places, valid)
        return torch.stack(memory.keys), torch.stack(memory.values), memory.last()


class Denoise(nn.Module):
    """``denoise`` of a memory that is two arrays."""

    def __init__(self, network: DiffGRM) -> None:
        super().__init__()
        self.network = network

    def forward(self, codes: Tensor, mask: Tensor, wanted: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Codes and mask [B, Q, n], wanted [B, C] and the memory -> logits [B, Q, n, K]; see ``DiffGRM.denoise_places``."""
        memory = Memory(keys.unbind(0), values.unbind(0), valid[:, None], plain=True)
        return self.network.denoise_places(codes, mask, memory, wanted)


def export_onnx(recommender: Recommender, folder: str | Path) -> Path:
    """Write a folder that :func:`diffgrm.load_onnx` reads, whole or not at all; an older export there is replaced.

    The decoding settings of the recommender's recipe are kept with it.

    Raises:
        RecipeError: a recommender or a way of decoding that cannot be exported.
        ModelFolderError: the place is taken by something else, or writing failed (nothing is lost then).
        MissingExtraError: the packages that write ONNX are not installed.
    """
    folder = Path(folder)
    network = _network_of(recommender)
    _check_installed()
    model_folder.check_target(folder, model_folder.EXPORT)
    assert isinstance(recommender, DiffGRMRecommender) and recommender.semantic_ids is not None
    recipe = recommender.recipe
    options, scoring = recipe.decoding.options, recipe.item_loss
    settings = {"max_len": network.max_len, "decoding": recipe.decoding.name}
    settings |= {
        name: options[name]
        for name in ("beam", "order", "candidates", "weight", "co_occurrence", "new_items")
        if name in options
    }
    settings |= {"cosine": scoring.cosine, "temperature": scoring.temperature}
    vectors = recommender.ranker().items.vectors.float().cpu().numpy()
    facts = {"recommender": recipe.recommender, "facts": recommender.facts, "onnx": settings}
    with model_folder.writing(folder, facts, model_folder.EXPORT) as new:
        _write_graphs(network, new)
        _check_graphs(network, new)
        recommender.semantic_ids.save(new / SIDS)
        State({"vectors": vectors}, {}).save(new / VECTORS)
        if (neighbours := recommender.ranker().items.neighbours) is not None:
            neighbours.state().save(new / CO_OCCURRENCE)
        ids = recommender.item_table.select(Columns.ITEM)
        ids.with_columns(pl.Series(OFFERED, recommender.recommendable)).write_parquet(new / ITEMS)
        (new / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        name = f"{type(recommender).__name__} as ONNX"
        card = model_card(name, recommender.facts, recipe.to_yaml(), recommender.items.ids([0])[0], reader="load_onnx")
        (new / "README.md").write_text(card, encoding="utf-8")
    return folder


def _network_of(recommender: Recommender) -> DiffGRM:
    """A copy of the network, on the CPU and in 32 bits.

    Raises:
        RecipeError: with all that stands in the way of an export.
    """
    recipe = recommender.recipe
    if type(recommender) is not DiffGRMRecommender or recipe.model.name != "diffgrm":
        raise RecipeError(
            "only the recommender 'diffgrm' with the model 'diffgrm' can be exported to ONNX; this is "
            f"{recipe.recommender!r}" + (f" with the model {recipe.model.name!r}" if "model" in recipe.sections else "")
        )
    recommender._check_fitted()
    sids = recommender.semantic_ids
    assert sids is not None and recommender.network is not None
    problems = []
    if recipe.decoding.name not in DECODING:
        names = " or ".join(f"decoding.name={name}" for name in DECODING)
        problems.append(f"expected {names}, found {recipe.decoding.name}")
    for setting, expected in DECODING.get(recipe.decoding.name, {}).items():
        found = recipe.decoding.options[setting]
        if found not in expected and not (setting == "steps" and found == sids.n_digits):
            choices = " or ".join(f"decoding.{setting}={_yaml(value)}" for value in expected)
            problems.append(f"expected {choices}, found {_yaml(found)}")
    if problems:
        raise RecipeError(
            f"this way of decoding has no ONNX runtime; change it for the export with overrides:\n{bullet_list(problems)}"
        )
    network = recipe.model.build(**recommender._sizes())
    network.load_state_dict(recommender.network.state_dict())
    return network.eval()


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_installed() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx", "diffgrm export") from error


def _write_graphs(network: DiffGRM, folder: Path) -> None:
    """Trace both functions with every size left open that a question decides."""
    users, items, questions, unknown = Dim("users"), Dim("items"), Dim("questions"), Dim("unknown")
    length = Dim("length", max=network.max_len) if network.max_len > 1 else None
    example = _question(network, users=2, items=4, length=min(3, network.max_len), questions=3)
    encode_history, denoise = EncodeHistory(network), Denoise(network)
    with torch.no_grad():
        keys, values, _ = encode_history(**example.history)
    memory = {"keys": keys, "values": values, "valid": example.history["valid"]}
    one_row_a_user = {0: users, 1: length}
    _write_graph(
        encode_history,
        example.history,
        {"vectors": {0: items}, "places": one_row_a_user, "valid": one_row_a_user},
        ["keys", "values", "users"],
        folder / ENCODE_HISTORY,
    )
    _write_graph(
        denoise,
        {**example.partial, **memory},
        {
            "codes": {0: users, 1: questions},
            "mask": {0: users, 1: questions},
            "wanted": {0: users, 1: unknown},
            "keys": {1: users, 3: length},
            "values": {1: users, 3: length},
            "valid": one_row_a_user,
        },
        ["logits"],
        folder / DENOISE,
    )


class _Question(NamedTuple):
    """Inputs of both graphs: what ``encode_history`` takes, and what ``denoise`` takes besides the memory."""

    history: dict[str, Tensor]
    partial: dict[str, Tensor]


def _question(network: DiffGRM, users: int, items: int, length: int, questions: int) -> _Question:
    """Some histories of full length, and some partial SIDs of which the first digit is unknown."""
    n, K, width = network.n_digits, network.codebook_size, network.codes.shape[1]
    history = {
        "vectors": torch.linspace(-1, 1, items * width).view(items, width),
        "places": (torch.arange(users * length) % items).view(users, length),
        "valid": torch.ones(users, length, dtype=torch.bool),
    }
    codes = (torch.arange(users * questions * n) % K).view(users, questions, n)
    mask = (torch.arange(n) == 0).expand(users, questions, n).contiguous()
    wanted = (torch.arange(questions) * n).expand(users, questions).contiguous()
    return _Question(history, {"codes": codes, "mask": mask, "wanted": wanted})


def _write_graph(
    module: nn.Module, example: dict[str, Tensor], sizes: dict[str, dict[int, Any]], outputs: list[str], path: Path
) -> None:
    """Trace a module and write it, without the traces of source lines that the exporter puts at every operation."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            kwargs=example,
            input_names=list(example),
            output_names=outputs,
            dynamic_shapes=sizes,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        program.save(path, external_data=weights > LARGEST_FILE)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on PyTorch's own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_graphs(network: DiffGRM, folder: Path) -> None:
    """Make sure that the graphs say what the network says, for sizes that they were not traced with.

    Raises:
        DiffGRMError: they do not.
    """
    graphs = Network(folder, threads=1)
    example = _question(network, users=1, items=1, length=1, questions=5)
    codes, mask = example.partial["codes"], example.partial["mask"]
    with torch.no_grad():
        wanted = network.denoise(codes, mask, network.encode_history(*example.history.values()))
    try:
        memory = graphs.encode_history(*(part.numpy() for part in example.history.values()))
        found = graphs.denoise(codes.numpy(), mask.numpy(), memory)
    except ModelFolderError as error:
        reason = str(error)
    else:
        if np.allclose(found, wanted, rtol=1e-3, atol=1e-3):
            return
        reason = f"logits differ by {np.abs(found - wanted.numpy()).max():.2g}"
    raise DiffGRMError(
        f"the graphs that PyTorch {torch.__version__} wrote do not compute what the network does ({reason}); export with "
        "another version of PyTorch"
    )
