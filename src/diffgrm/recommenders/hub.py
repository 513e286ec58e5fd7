"""The names that Hugging Face users expect, for whatever can be saved to a folder and loaded from it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from diffgrm.foundation.registry import Trust
from diffgrm.recommenders import saving


class OnTheHub(ABC):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""

    @abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Write the model folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: str | Path, *, trust_code: Trust = False) -> Self:
        """Read a model folder."""

    def save_pretrained(self, folder: str | Path) -> Path:
        """The same as :meth:`save`, by the name Hugging Face users expect."""
        return self.save(folder)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | bool | None = None, trust_code: Trust = False
    ) -> Self:
        """Load from a folder, or download a repository of the Hugging Face hub and load that; see :meth:`load`.

        Raises:
            ModelFolderError: neither a folder nor a repository that the hub gives, or not a model; or no hub is reached.
        """
        place = name if os.path.lexists(name) and Path(name).is_dir() else saving.download(str(name), revision, token)
        return cls.load(place, trust_code=trust_code)

    def push_to_hub(
        self, repository: str, *, private: bool = False, token: str | bool | None = None, message: str = "Upload model"
    ) -> str:
        """Upload the model folder to a repository of the Hugging Face hub, made if it is not there; returns its URL.

        Raises:
            ModelFolderError: the hub refuses (no token, no right to write, wrong name), or cannot be reached.
        """
        return saving.upload(self.save, repository, private, token, message)
