"""The exported network: two graphs that ONNX Runtime runs.

Letters: L decoder layers, h heads, e width of a head, S history length, Q partial SIDs a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffgrm.foundation.schema import MissingExtraError, ModelFolderError
from diffgrm.foundation.storage import regular
from diffgrm.ranking.no_numbers import no_numbers

ENCODE_HISTORY, DENOISE = "encode_history.onnx", "denoise.onnx"
# Inputs of the first, where the network is told of them: types of events; times, or columns of events or users.
TYPES, CONTEXT = "types", "context"


@dataclass(frozen=True)
class Memory:
    """Encoded histories of B users.

    Attributes:
        keys, values: [L, B, h, S, e].
        valid: [B, S] bool, which places are real.
        users: [B, d] the users' vectors, ready to be multiplied with those of items.
        newest: [B, d] the states of the newest items; None: ``denoise`` does without.
        pairs: [B, r] what users are multiplied with the pairs of digits of items by; None: pairs say nothing.
    """

    keys: np.ndarray
    values: np.ndarray
    valid: np.ndarray
    users: np.ndarray
    newest: np.ndarray | None = None
    pairs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, users: np.ndarray) -> Memory:
        """The chosen users [b]."""
        newest, pairs = (None if part is None else part[users] for part in (self.newest, self.pairs))
        return Memory(self.keys[:, users], self.values[:, users], self.valid[users], self.users[users], newest, pairs)


class Network:
    """``encode_history`` and ``denoise`` of an export.

    Args:
        folder: of the export.
        threads: that ONNX Runtime computes with; None is all cores.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelFolderError: a graph that ONNX Runtime does not take.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self._encode_history, self._denoise = (_session(folder / name, threads) for name in (ENCODE_HISTORY, DENOISE))

    @property
    def told(self) -> set[str]:
        """What it is told of histories besides their items: :data:`TYPES`, :data:`CONTEXT`."""
        return {TYPES, CONTEXT} & {one.name for one in self._encode_history.get_inputs()}

    def encode_history(
        self,
        vectors: np.ndarray,
        places: np.ndarray,
        valid: np.ndarray,
        types: np.ndarray | None = None,
        context: np.ndarray | None = None,
    ) -> Memory:
        """Histories -> memory.

        Args:
            vectors: [M, d] float32 of the distinct items of the histories.
            places: [B, S] int64, which of them stands where, oldest first.
            valid: [B, S] bool, true for the first places of each row, at least one a row.
            types: [M] int64, of what type the events of the distinct items are; None: nothing is told of types.
            context: [B, S, C] int64, what is told of each place besides; None: nothing.
        """
        given = {"vectors": vectors, "places": places, "valid": valid}
        given |= {name: part for name, part in ((TYPES, types), (CONTEXT, context)) if part is not None}
        found = _run(self._encode_history, given, ("keys", "values", "users"))
        return Memory(found["keys"], found["values"], valid, found["users"], found.get("newest"), found.get("pairs"))

    def denoise(self, codes: np.ndarray, mask: np.ndarray, memory: Memory) -> np.ndarray:
        """Logits [B, Q, n, K] of every digit, given those that are known; 0 for known digits.

        Args:
            codes: [B, Q, n] int64, any value where masked.
            mask: [B, Q, n] bool, true where the digit is unknown.

        Raises:
            DiffGRMError: logits of unknown digits that are no numbers.
        """
        unknown = mask.reshape(len(mask), -1)
        wanted = np.argsort(~unknown, axis=1, kind="stable")[:, : int(unknown.sum(1).max())]
        given = {"codes": codes, "mask": mask, "wanted": wanted}
        given |= {"keys": memory.keys, "values": memory.values, "valid": memory.valid}
        given = given if memory.newest is None else given | {"newest": memory.newest}
        logits = _run(self._denoise, given, ("logits",))["logits"]
        if not (fine := np.isfinite(logits.max(-1)) | ~mask).all():
            raise no_numbers("the exported network", "denoise", int((~fine).sum()), fine.size)
        return logits


def _session(path: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "recommending from an ONNX export") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(regular(path), options, providers=["CPUExecutionProvider"])
    except _errors() as error:
        raise ModelFolderError(f"ONNX Runtime cannot read {path}: {error}") from error


def _errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's errors, which have no base of their own, and those that it takes from Python."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception))
    return (*own, RuntimeError, ValueError)


def _run(session: Any, given: dict[str, np.ndarray], wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The outputs of a graph by their names, those wanted and perhaps more; it may do without some of the inputs."""
    outputs = [one.name for one in session.get_outputs()]
    if missing := [name for name in wanted if name not in outputs]:
        raise ModelFolderError(f"the graph of the export does not give {', '.join(missing)}; export the model again")
    wants = [one.name for one in session.get_inputs()]
    refused = "the graph of the export does not take what it is given"
    if unknown := [name for name in wants if name not in given]:
        raise ModelFolderError(f"{refused}: it asks for {', '.join(unknown)} too; export the model again")
    try:
        found = session.run(None, {name: given[name] for name in wants})
    except _errors() as error:
        raise ModelFolderError(f"{refused}: {error}") from error
    return dict(zip(outputs, found, strict=True))
