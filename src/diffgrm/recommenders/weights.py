"""The weights of a network in a model folder (floor 5)."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from diffgrm.schema import ModelFolderError

NETWORK = "model.safetensors"


def save_network(network: nn.Module, folder: Path) -> None:
    """Write the weights."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, folder / NETWORK)


def load_network(network: nn.Module, folder: Path) -> nn.Module:
    """The network with the weights of a model folder, ready for use.

    Raises:
        ModelFolderError: damaged weights, or those of another network.
    """
    try:
        network.load_state_dict(load_file(folder / NETWORK))
    except (SafetensorError, RuntimeError) as error:
        raise ModelFolderError(f"{folder / NETWORK} does not fit the recipe beside it: {error}") from error
    return network.eval()
