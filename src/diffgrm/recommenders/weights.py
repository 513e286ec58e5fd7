"""Weights of networks in a file, which is compared with the network before anything of that is made."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from diffgrm.foundation.schema import ModelFolderError, first_few
from diffgrm.foundation.storage import refusal, regular, usual_mode

Shapes = dict[str, tuple[int, ...]]


def save(network: nn.Module, path: Path, sizes: Mapping[str, int]) -> None:
    """Write a network's weights; the sizes travel in the header."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with usual_mode(path):
        save_file(weights, path, metadata={"sizes": json.dumps(sizes)})


def read_header(path: Path) -> tuple[dict[str, int], Shapes]:
    """Sizes that travel with the weights, and the shape of each.

    Raises:
        ModelFolderError: a missing or damaged file, or sizes that are none.
    """
    try:
        with safe_open(regular(path), framework="numpy") as file:
            sizes = json.loads((file.metadata() or {})["sizes"])
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} {refusal(error) or f'is damaged, or holds no weights: {error!r}'}") from error
    if not isinstance(sizes, dict) or any(type(size) is not int or size < 0 for size in sizes.values()):
        raise ModelFolderError(f"{path} is damaged: its sizes are {str(sizes)[:200]}, expected whole numbers by name")
    return sizes, shapes


def load(network: nn.Module, path: Path) -> nn.Module:
    """The network with the weights of a file.

    Raises:
        ModelFolderError: a damaged file, or weights of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ModelFolderError(f"{path} does not fit the recipe beside it: {error}") from error
    return network


def check_shapes(build: Callable[[], nn.Module], shapes: Shapes, path: Path) -> None:
    """Make sure that a network has the weights of a file, in time and memory that the file bounds.

    The network is made without memory, and left off where it has more than the file.

    Args:
        build: makes the network.

    Raises:
        ModelFolderError: it has others.
    """
    try:
        with torch.device("meta"), _at_most(shapes):
            found = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ModelFolderError(f"{path} does not fit the recipe beside it: {error}") from error
    if found != shapes:
        names = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
        told = [f"{name} (file: {shapes.get(name)}, recipe: {found.get(name)})" for name in names]
        raise ModelFolderError(f"{path} does not fit the recipe beside it: {first_few(told, 3)}")


@contextmanager
def _at_most(shapes: Shapes) -> Iterator[None]:
    """Networks of this thread may register no more parameters than twice these shapes, and a few that they throw away."""
    tensors, numbers = 2 * len(shapes) + 64, 2 * sum(torch.Size(shape).numel() for shape in shapes.values()) + 2**24
    here = threading.get_ident()

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal tensors, numbers
        if parameter is None or threading.get_ident() != here:
            return
        tensors, numbers = tensors - 1, numbers - parameter.numel()
        if tensors < 0 or numbers < 0:
            raise RuntimeError("its recipe asks for a larger network")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
