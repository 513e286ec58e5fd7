"""Tracing a network as the two graphs of an export, and making sure that they compute what it does."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from diffgrm.data.context import input_sizes
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DiffGRMError, ModelFolderError
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.contracts import (
    Denoises,
    DenoisesPlaces,
    EncodesHistories,
    PairsDigits,
    ScoresItems,
    contract,
    entered,
)
from diffgrm.networks.inputs import Histories
from diffgrm.networks.memory import Memory
from diffgrm.ranking.item_table import ItemTable
from diffgrm.runtime_onnx.network import CONTEXT, DENOISE, ENCODE_HISTORY, TYPES, Network

LARGEST_FILE = 2**31 - 2**20  # bytes of weights that a single ONNX file holds; more go into a file beside it


class Told(NamedTuple):
    """What a network is told of events besides their items.

    Attributes:
        types: how many types of events it tells apart; 0: none.
        context: how many values each input of the context has; empty: there is none.
    """

    types: int
    context: tuple[int, ...]

    @classmethod
    def of(cls, events: EventSettings) -> Told:
        """What a recipe says of it."""
        return cls(events.n_inputs, tuple(input_sizes(events)) if events.tells_context else ())


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

    def memory(
        self, vectors: Tensor, places: Tensor, valid: Tensor, types: Tensor | None = None, context: Tensor | None = None
    ) -> Memory:
        """Vectors [M, d], places [B, S], valid [B, S]; types [M] and context [B, S, C] where they are told -> memory."""
        return self.encode(*entered(self.network, vectors, Histories(places, places, valid, types, context)), valid)

    def forward(
        self, vectors: Tensor, places: Tensor, valid: Tensor, types: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The same -> keys and values [L, B, heads, S, d/heads] of L layers, the vectors [B, d] of users, ready to be
        multiplied with those of items; and ``more``, the newest states [B, d] and numbers [B, r] for pairs of digits."""
        memory = self.memory(vectors, places, valid, types, context)
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


def write_graphs(items: ItemTable, folder: Path, more: tuple[str, ...], told: Told) -> None:
    """Trace both functions with every size left open that a question decides.

    Args:
        more: see :class:`EncodeHistory`.
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
        {name: {0: distinct} if name in ("vectors", TYPES) else one_row_a_user for name in example.history},
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


def _question(items: ItemTable, users: int, distinct: int, length: int, questions: int, told: Told) -> _Question:
    """Some histories, of which the first is of one item, and some partial SIDs of which the first digit is unknown."""
    digits, width = contract(items.network, DenoisesPlaces).digits, items.vectors.shape[1]
    n, K = digits.n_digits, digits.codebook_size
    history = {
        "vectors": torch.linspace(-1, 1, distinct * width).view(distinct, width),
        "places": (torch.arange(users * length) % distinct).view(users, length),
        "valid": torch.ones(users, length, dtype=torch.bool),
    }
    history["valid"][0, 1:] = False
    if told.types:
        history[TYPES] = torch.arange(distinct) % told.types
    if told.context:
        sizes = torch.tensor(told.context)
        first = sizes.cumsum(0) - sizes  # of its rows in the table of all inputs
        history[CONTEXT] = (torch.arange(users * length)[:, None] % sizes + first).view(users, length, -1)
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


def check_graphs(items: ItemTable, folder: Path, more: tuple[str, ...], told: Told) -> None:
    """Make sure that the graphs say what the network says, for sizes that they were not traced with.

    Raises:
        DiffGRMError: they do not.
    """
    graphs, network = Network(folder, threads=1), items.network
    denoise, encode = contract(network, Denoises).denoise, EncodeHistory(network, items.comparison, more)
    longest = contract(network, EncodesHistories).max_len
    for n_users, distinct, length, questions in ((1, 1, 1, 5), (3, 5, min(2, longest), 1)):
        history, partial = _question(items, n_users, distinct, length, questions, told)
        codes, mask = partial["codes"], partial["mask"]
        with torch.no_grad():
            memory = encode.memory(**history)
            _, _, users, *rest = encode(**history)
            wanted = {"users' vectors": users, "logits": denoise(codes, mask, memory), **dict(zip(more, rest, strict=True))}
        try:
            encoded = graphs.encode_history(**{name: part.numpy() for name, part in history.items()})
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
