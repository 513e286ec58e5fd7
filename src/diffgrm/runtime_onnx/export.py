"""encode_history and denoise as ONNX, in a folder that is used without PyTorch."""

from __future__ import annotations

import copy
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

from diffgrm.data.context import input_sizes
from diffgrm.foundation import model_folder, registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DiffGRMError, MissingExtraError, ModelFolderError, RecipeError, bullet_list
from diffgrm.foundation.storage import State, write_parquet
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.contracts import (
    Denoises,
    DenoisesPlaces,
    EncodesHistories,
    PairsDigits,
    ScoresItems,
    contract,
    entered,
    lacks,
)
from diffgrm.networks.inputs import Histories
from diffgrm.networks.memory import Memory
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.card import model_card
from diffgrm.recommenders.item_catalogue import COUNT, ITEMS, RECOMMENDABLE
from diffgrm.recommenders.parts import part_of
from diffgrm.recommenders.rankers import Tables, item_features
from diffgrm.recommenders.saving import RECIPE
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import SIDS, Identifiers
from diffgrm.recommenders.trained_network import network_of
from diffgrm.recommenders.user_profiles import user_parts
from diffgrm.runtime_onnx.network import DENOISE, ENCODE_HISTORY, Network
from diffgrm.runtime_onnx.recommender import COMPARABLE, ITEM_VECTORS, PAIRS, VECTORS

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
    "one_pass": {},
}


class EncodeHistory(nn.Module):
    """``encode_history`` with the memory as arrays.

    Args:
        more: what else is asked for: ``newest``, the states of newest items, where ``denoise`` needs them; ``pairs``, what
            users are multiplied with the pairs of digits of items by, where the network has some.
    """

    def __init__(self, network: nn.Module, comparison: Comparison, more: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.comparison, self.more = network, comparison, more
        self.encode = contract(network, EncodesHistories).encode_history
        self.user_vectors = contract(network, ScoresItems).user_vectors

    def memory(self, vectors: Tensor, places: Tensor, valid: Tensor, context: Tensor | None = None) -> Memory:
        """Vectors [M, d], places [B, S], valid [B, S], context [B, S, C] where it is told -> memory."""
        entering = entered(self.network, vectors, Histories(places, places, valid, context=context))
        return self.encode(*entering, valid)

    def forward(self, vectors: Tensor, places: Tensor, valid: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """The same -> keys and values [L, B, heads, S, d/heads] of L layers, the vectors [B, d] of users, ready to be
        multiplied with those of items; and ``more``, the newest states [B, d] and numbers [B, r] for pairs of digits."""
        memory = self.memory(vectors, places, valid, context)
        users, further = self.comparison.users(self.user_vectors(memory)), {"newest": self._newest, "pairs": self._pairs}
        return torch.stack(memory.keys), torch.stack(memory.values), users, *(further[name](memory) for name in self.more)

    def _newest(self, memory: Memory) -> Tensor:
        return memory.newest()

    def _pairs(self, memory: Memory) -> Tensor:
        users = contract(self.network, PairsDigits).pair_users(memory)
        assert users is not None
        return users[:, 0]


class Denoise(nn.Module):
    """``denoise`` of a memory that is arrays."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.denoise_places = contract(network, DenoisesPlaces).denoise_places

    def forward(
        self,
        codes: Tensor,
        mask: Tensor,
        wanted: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        newest: Tensor | None = None,
    ) -> Tensor:
        """Codes and mask [B, Q, n], wanted [B, C], memory -> logits [B, Q, n, K]; see :class:`DenoisesPlaces`."""
        states = None if newest is None else newest[:, None]
        memory = Memory(keys.unbind(0), values.unbind(0), valid[:, None], plain=True, states=states)
        return self.denoise_places(codes, mask, memory, wanted)


def export_onnx(recommender: Recommender, folder: str | Path) -> Path:
    """Write a folder that :func:`diffgrm.load_onnx` reads, whole or not at all; an older export there is replaced.

    The decoding settings of the recommender's recipe are kept with it.

    Raises:
        RecipeError: a recommender or a way of decoding that cannot be exported.
        ModelFolderError: the place is taken by something else, or writing failed (nothing is lost then).
        MissingExtraError: the packages that write ONNX are not installed.
    """
    folder = Path(folder)
    ranker = _ranker_of(recommender)
    _check_installed()
    model_folder.check_target(folder, model_folder.EXPORT)
    recipe, catalogue = recommender.recipe.portable(), recommender.catalogue
    network = contract(ranker.network, EncodesHistories)
    settings = {"max_len": network.max_len, "causal": network.causal}
    told, more = input_sizes(recipe.events) if recipe.events.tells_context else [], _asked_of_encoder(recipe, ranker.items)
    facts = {"recommender": recipe.recommender, "facts": recommender.facts, "onnx": settings}
    with model_folder.writing(folder, facts, model_folder.EXPORT) as new:
        _write_graphs(ranker.items, new, more, told)
        _check_graphs(ranker.items, new, more, told)
        vectors = {VECTORS: ranker.items.vectors.numpy()}
        if (pairs := ranker.items.pair_vectors) is not None:
            vectors[PAIRS] = pairs.numpy()
        if ranker.scoring is not None:
            part_of(recommender.parts, "scorers", ItemScorers).save(new)
            if ranker.items.comparable is not ranker.items.vectors:
                vectors[COMPARABLE] = ranker.items.comparable.numpy()
        State(vectors).save(new / ITEM_VECTORS)
        for part in user_parts(recipe):
            recommender.parts[part].save(new)
        part_of(recommender.parts, "sids", Identifiers).semantic_ids.save(new / SIDS)
        rows = catalogue.table.drop(Columns.TEXT).with_columns(pl.Series(RECOMMENDABLE, recommender.recommendable))
        lifted = recipe.decoding.name == "one_pass"
        write_parquet(rows.with_columns(pl.Series(COUNT, catalogue.counts)) if lifted else rows, new / ITEMS)
        (new / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        name = f"{type(recommender).__name__} as ONNX"
        card = model_card(name, recommender.facts, recipe, catalogue.ids.ids([0])[0], reader="load_onnx")
        (new / "README.md").write_text(card, encoding="utf-8")
    return folder


def _asked_of_encoder(recipe: Recipe, items: ItemTable) -> tuple[str, ...]:
    """What else than keys, values and users' vectors the encoder is asked for, in order."""
    asked = {"newest": bool(recipe.model.options.get("skip")), "pairs": items.pair_vectors is not None}
    return tuple(name for name, wanted in asked.items() if wanted)


def _ranker_of(recommender: Recommender) -> Ranker:
    """What ranks for a recommender, on the CPU and in 32 bits.

    Raises:
        RecipeError: with all that stands in the way of an export.
        DiffGRMError: not fitted.
    """
    recipe = recommender.recipe
    _check_method(recipe)
    catalogue, parts = recommender.catalogue, recommender.parts
    learnt = network_of(parts)
    _check_decoding(recipe, learnt.sizes["n_digits"])
    network = copy.deepcopy(learnt.network).cpu().eval()
    features = item_features(parts, catalogue.counts, learnt.sizes["n_items"])
    decoder = recipe.decoding.build(seed=recipe.seed)
    return Tables(recipe, parts, catalogue.recommendable).ranker(network, features, decoder)


def _check_method(recipe: Recipe) -> None:
    """Refuse methods without a network that can be exported, or without semantic IDs.

    Raises:
        RecipeError: with all that stands in the way.
    """
    problems = []
    if "model" not in recipe.sections:
        problems.append("it has no network")
    else:
        name = recipe.model.name
        network = registry.resolve("model", name)
        missing = sorted({method for need in (DenoisesPlaces, ScoresItems) for method in lacks(network, need)})
        if missing:
            problems.append(f"its model {name!r} lacks {', '.join(missing)}; model.name=diffgrm has them")
    if "semantic_ids" not in recipe.sections:
        problems.append("it has no semantic IDs")
    if recipe.events.n_inputs:
        problems.append("its network is told types of events, which exports do not have; fit with events.type_input=false")
    if problems:
        raise RecipeError(
            f"the recommender {recipe.recommender!r} cannot be exported to ONNX, as 'diffgrm' and 'hybrid' can:\n"
            f"{bullet_list(problems)}"
        )


def _check_decoding(recipe: Recipe, n_digits: int) -> None:
    """Refuse ways of decoding that the ONNX runtime does not have.

    Raises:
        RecipeError: with all that stands in the way.
    """
    name, options, problems = recipe.decoding.name, recipe.decoding.options, []
    if name not in DECODING:
        names = " or ".join(f"decoding.name={name}" for name in DECODING)
        problems.append(f"expected {names}, found {name}")
    for setting, expected in DECODING.get(name, {}).items():
        found = options[setting]
        if found not in expected and not (setting == "steps" and found == n_digits):
            choices = " or ".join(f"decoding.{setting}={_yaml(value)}" for value in expected)
            problems.append(f"expected {choices}, found {_yaml(found)}")
    if problems:
        raise RecipeError(
            f"this way of decoding has no ONNX runtime; change it for the export with overrides:\n{bullet_list(problems)}"
        )


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_installed() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx", "diffgrm export") from error


def _write_graphs(items: ItemTable, folder: Path, more: tuple[str, ...], told: list[int]) -> None:
    """Trace both functions with every size left open that a question decides.

    Args:
        more: see :class:`EncodeHistory`.
        told: how many values each input of the context has.
    """
    network = contract(items.network, EncodesHistories)
    users, distinct, questions, unknown = Dim("users"), Dim("items"), Dim("questions"), Dim("unknown")
    length = Dim("length", max=network.max_len) if network.max_len > 1 else None
    example = _question(items, 2, 4, min(3, network.max_len), questions=3, told=told)
    encode_history, denoise = EncodeHistory(items.network, items.comparison, more), Denoise(items.network)
    with torch.no_grad():
        keys, values, _, *found = encode_history(**example.history)
    newest = {"newest": found[0]} if "newest" in more else {}
    memory = {"keys": keys, "values": values, "valid": example.history["valid"], **newest}
    one_row_a_user = {0: users, 1: length}
    _write_graph(
        encode_history,
        example.history,
        {name: {0: distinct} if name == "vectors" else one_row_a_user for name in example.history},
        ["keys", "values", "users", *more],
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
            **({"newest": {0: users}} if newest else {}),
        },
        ["logits"],
        folder / DENOISE,
    )


class _Question(NamedTuple):
    """Inputs of both graphs: what ``encode_history`` takes, and what ``denoise`` takes besides the memory."""

    history: dict[str, Tensor]
    partial: dict[str, Tensor]


def _question(items: ItemTable, users: int, distinct: int, length: int, questions: int, told: list[int]) -> _Question:
    """Some histories, of which the first is of one item, and some partial SIDs of which the first digit is unknown.

    Args:
        told: how many values each input of the context has.
    """
    digits, width = contract(items.network, DenoisesPlaces).digits, items.vectors.shape[1]
    n, K = digits.n_digits, digits.codebook_size
    history = {
        "vectors": torch.linspace(-1, 1, distinct * width).view(distinct, width),
        "places": (torch.arange(users * length) % distinct).view(users, length),
        "valid": torch.ones(users, length, dtype=torch.bool),
    }
    history["valid"][0, 1:] = False
    if told:
        sizes = torch.tensor(told)
        first = sizes.cumsum(0) - sizes  # of its rows in the table of all inputs
        history["context"] = (torch.arange(users * length)[:, None] % sizes + first).view(users, length, -1)
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


def _check_graphs(items: ItemTable, folder: Path, more: tuple[str, ...], told: list[int]) -> None:
    """Make sure that the graphs say what the network says, for sizes that they were not traced with.

    Raises:
        DiffGRMError: they do not.
    """
    graphs, network = Network(folder, threads=1), items.network
    denoise, encode = contract(network, Denoises).denoise, EncodeHistory(network, items.comparison, more)
    longest = contract(network, EncodesHistories).max_len
    for users, distinct, length, questions in ((1, 1, 1, 5), (3, 5, min(2, longest), 1)):
        history, partial = _question(items, users, distinct, length, questions, told)
        codes, mask = partial["codes"], partial["mask"]
        with torch.no_grad():
            memory = encode.memory(**history)
            _, _, users, *rest = encode(**history)
            wanted = {"users' vectors": users, "logits": denoise(codes, mask, memory), **dict(zip(more, rest, strict=True))}
        try:
            encoded = graphs.encode_history(*(part.numpy() for part in history.values()))
            found = {"users' vectors": encoded.users, "logits": graphs.denoise(codes.numpy(), mask.numpy(), encoded)}
            found |= {name: getattr(encoded, name) for name in more}
        except ModelFolderError as error:
            raise _differ(str(error)) from error
        for name, values in found.items():
            if not np.allclose(values, wanted[name], rtol=1e-3, atol=1e-3):
                raise _differ(f"{name} differ by {np.abs(values - wanted[name].numpy()).max():.2g}")


def _differ(how: str) -> DiffGRMError:
    return DiffGRMError(
        f"the graphs that PyTorch {torch.__version__} wrote do not compute what the network does ({how}); export with "
        "another version of PyTorch"
    )
