"""Model folders of recommenders: written and read whole; and the hub they are shared on."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from diffgrm.foundation import model_folder, registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import regular
from diffgrm.foundation.yaml_text import LONGEST
from diffgrm.recommenders import old_folders
from diffgrm.recommenders.card import check_facts, model_card
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import Beside, LearntPart
from diffgrm.recommenders.user_profiles import user_parts

RECIPE = "recipe.yaml"
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Saved(Protocol):
    """What is kept of a recommender."""

    recipe: Recipe
    parts: dict[str, LearntPart]
    facts: dict[str, Any]

    @property
    def catalogue(self) -> ItemCatalogue:
        """The items it knows."""
        ...

    def new_parts(self) -> dict[str, LearntPart]:
        """What it learns, not yet loaded."""
        ...

    def take(self, parts: dict[str, LearntPart], catalogue: ItemCatalogue, facts: dict[str, Any]) -> None:
        """Go over to parts that are all loaded, their catalogue and facts."""
        ...


R = TypeVar("R", bound=Saved)


def write(recommender: Saved, folder: Path, kind: str = model_folder.MODEL, example: Sequence[str] | None = None) -> Path:
    """Write a fitted recommender to a model folder, whole or not at all; see ``Recommender.save``.

    Args:
        kind: format of the folder.
        example: how its card tells to use it; None: as a recommender.
    """
    catalogue, recipe = recommender.catalogue, recommender.recipe.portable()
    facts = {"recommender": recipe.recommender, "facts": recommender.facts}
    with model_folder.writing(folder, facts, kind) as new:
        (new / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        catalogue.save(new)
        for part in recommender.parts.values():
            part.save(new)
        _check_tables(new, recipe)
        item = catalogue.ids.ids([0])[0]
        card = model_card(type(recommender).__name__, recommender.facts, recipe, item, example=example)
        (new / "README.md").write_text(card, encoding="utf-8")
    return folder


def _check_tables(folder: Path, recipe: Recipe) -> None:
    """Read again the tables that were written, before they take the place of others; arrays are checked as they are saved.

    Raises:
        ModelFolderError: they could not be loaded.
    """
    catalogue = ItemCatalogue.load(folder)
    for part in user_parts(recipe).values():
        part.load(folder, recipe, Beside(len(catalogue.ids), {}))


def read(folder: Path, make: Callable[[Recipe], R], trust_code: Trust, kind: str = model_folder.MODEL) -> R:
    """Read a model folder of this format or the one before; see ``Recommender.load``.

    Args:
        make: gives a recommender without what it has learnt.
        kind: format that the folder must have.
    """

    def take(manifest: dict[str, Any]) -> R:
        with old_folders.as_new(folder, manifest) as readable:
            recipe = Recipe.from_yaml(regular(readable / RECIPE, LONGEST))
            # A stranger's recipe names no files of this machine, of which an encoder's could hold code.
            recommender = make(recipe if registry.trust() is True else recipe.portable())
            catalogue = ItemCatalogue.load(readable)
            parts = user_parts(recommender.recipe) | recommender.new_parts()
            loaded: dict[str, LearntPart] = {}
            for name, part in parts.items():
                part.load(readable, recommender.recipe, Beside(len(catalogue.ids), loaded))
                loaded[name] = part
            check_facts(manifest["facts"])
            recommender.take(loaded, catalogue, manifest["facts"])
            return recommender

    return model_folder.read(folder, take, kind, trust_code)


def download(name: str, revision: str | None, token: str | bool | None) -> Path:
    """The folder of a repository of the Hugging Face hub.

    Raises:
        ModelFolderError: the hub does not give it, cannot be reached, or there is no room for it.
    """
    from huggingface_hub import snapshot_download

    with _asking_the_hub(f"{name} is neither a model folder nor a repository the hub gives"):
        return Path(snapshot_download(name, revision=revision, token=token))


def upload(save: Callable[[Path], Path], repository: str, private: bool, token: str | bool | None, message: str) -> str:
    """Save a model and upload it to a repository of the Hugging Face hub, made if it is not there; its URL.

    Raises:
        ModelFolderError: the hub refuses (no token, no right to write, wrong name), or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save(Path(temporary) / "model")
        with _asking_the_hub(f"the hub did not take the model as {repository!r}"):
            made = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message)
    return str(made)


@contextmanager
def _asking_the_hub(failure: str) -> Iterator[None]:
    """Let whatever the hub, the way to it or a disk says in the block be an error of a model.

    Which client of HTTP is asked, and what its errors are, goes by the version of huggingface_hub, and Xet has others
    still. So all are taken, and only what helps goes by their kind.

    Args:
        failure: how the message begins.

    Raises:
        ModelFolderError: it says something.
    """
    from huggingface_hub.utils import HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except Exception as error:
        what = f"{failure}: {error}"
        if getattr(error, "response", None) is None and not isinstance(error, HFValidationError | LocalTokenNotFoundError):
            what = f"{failure}: {type(error).__name__}: {error}"
            if getattr(error, "errno", None) in OF_DISKS:
                what += "; make room, or name a folder that can be written: HF_HOME"
            elif not isinstance(error, TypeError | ValueError | LookupError):  # of arguments
                what += "; the hub cannot be reached: check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, and try again"
        raise ModelFolderError(what) from error
