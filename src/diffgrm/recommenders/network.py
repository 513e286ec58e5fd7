"""What recommenders with a trained network share: training, devices, precision, weights (floor 5)."""

from __future__ import annotations

import copy
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from diffgrm.data.dataset import Split
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError, TrainingError
from diffgrm.learning.loop import train
from diffgrm.learning.objectives.base import Objective
from diffgrm.networks.compiled import compile_layers, compiled
from diffgrm.recommenders.base import Recommender

NETWORK = "model.safetensors"


class NetworkRecommender(Recommender):
    """A recommender whose ``_fit`` builds a network and trains it, and whose ``_rank`` asks :attr:`network_in_use`."""

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self.network: nn.Module | None = None
        self._precision = "32"
        self._in_use: nn.Module | None = None

    # ---- fit ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def _sizes(self) -> dict[str, int]:
        """The arguments of the network that the data decide: ``n_digits`` and ``codebook_size``."""

    def _new_network(self) -> Any:
        """The recipe's network with weights drawn by the recipe's seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            return self.recipe.model.build(**self._sizes())

    def _train(self, objective: Objective, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        """Train the objective's network and take it over."""
        recipe, network = self.recipe, objective.network
        if run_folder is None and recipe.training.devices > 1:
            raise TrainingError("several devices need a folder that all of them see: pass run_folder=")
        with tempfile.TemporaryDirectory() as temporary, compiled(network, recipe.training.compile):
            result = train(
                objective,
                events=split.train,
                validation=split.validation,
                max_len=int(network.max_len),  # type: ignore[arg-type]
                settings=recipe.training,
                seed=recipe.seed,
                run_folder=run_folder or Path(temporary) / "run",
                resume=resume,
                progress=progress,
            )
        self.network = network.eval()
        self._changed()
        self.facts |= {
            "parameters": sum(p.numel() for p in network.parameters()),
            "epochs": result.epochs,
            "steps": result.steps,
            "validation": result.validation,
            "earlier_seconds": result.earlier_seconds,
        }

    # ---- use ----------------------------------------------------------------------------------------------------

    def to(self, device: str, precision: Literal["32", "bf16"] = "32") -> Self:
        """See :meth:`Recommender.to`."""
        super().to(device, precision)
        self._check_fitted()
        assert self.network is not None
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network.to(device)
        self._precision = precision
        self._changed()
        return self

    def compile(self) -> Self:
        """Run the decoder layers through ``torch.compile`` in this process, which takes minutes at first use.

        Meant for GPUs: on the CPU it pays nothing (docs/results/performance.md).
        """
        self._check_fitted()
        assert self.network is not None
        compile_layers(self.network)
        self._changed()
        return self

    @property
    def network_in_use(self) -> nn.Module:
        """The network, in the precision that :meth:`to` was told."""
        self._check_fitted()
        assert self.network is not None
        if self._in_use is None:
            exact = self._precision == "32"
            self._in_use = self.network if exact else copy.deepcopy(self.network).to(torch.bfloat16)
        return self._in_use

    def _changed(self) -> None:
        """Forget what was made from the network."""
        self._in_use = None

    # ---- save and load ------------------------------------------------------------------------------------------

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        assert self.network is not None
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(weights, folder / NETWORK)

    def _load_files(self, folder: Path) -> None:
        super()._load_files(folder)
        network = self.recipe.model.build(**self._sizes())
        try:
            network.load_state_dict(load_file(folder / NETWORK))
        except (SafetensorError, RuntimeError) as error:
            raise ModelFolderError(f"{folder / NETWORK} does not fit the recipe beside it: {error}") from error
        self.network = network.eval()
