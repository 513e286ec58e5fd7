"""Parts by name: ``resolve("tokenizer", "opq")`` or ``resolve("tokenizer", "my_lab.my_module:MyTokenizer")``.

The table below holds strings only, so listing names imports nothing. A part's settings are the keyword
arguments of its constructor; write each as ``Annotated[type, "what it does"]`` and the recipe checks,
converts and explains it. Arguments that the caller supplies (``n_digits``, ``seed``...) carry no text.
"""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from diffgrm.foundation.schema import RecipeError, did_you_mean

PARTS: dict[str, dict[str, str]] = {
    "embedding": {
        "lsa": "diffgrm.semantic_ids.embeddings.lsa:LSA",
        "sentence_transformer": "diffgrm.semantic_ids.embeddings.sentence_transformer:SentenceTransformer",
        "precomputed": "diffgrm.semantic_ids.embeddings.precomputed:Precomputed",
    },
    "tokenizer": {
        "opq": "diffgrm.semantic_ids.tokenizers.opq:OPQTokenizer",
        "residual_kmeans": "diffgrm.semantic_ids.tokenizers.residual_kmeans:ResidualKMeansTokenizer",
        "random": "diffgrm.semantic_ids.tokenizers.random:RandomTokenizer",
    },
    "model": {
        "diffgrm": "diffgrm.networks.diffgrm:DiffGRM",
        "autoregressive": "diffgrm.networks.autoregressive:Autoregressive",
        "sasrec": "diffgrm.networks.sasrec:SASRec",
        "item_knn": "diffgrm.ranking.neighbours:ItemKNN",
        "text_knn": "diffgrm.ranking.neighbours:TextKNN",
    },
    "noising": {
        "confidence": "diffgrm.learning.noising.confidence:ConfidenceNoising",
        "coherent": "diffgrm.learning.noising.coherent:CoherentNoising",
        "random": "diffgrm.learning.noising.uniform:RandomNoising",
        "full_mask": "diffgrm.learning.noising.full_mask:FullMaskNoising",
    },
    "decoding": {
        "any_order_beam": "diffgrm.ranking.decoding.any_order_beam:AnyOrderBeam",
        "catalogue_beam": "diffgrm.ranking.decoding.catalogue_beam:CatalogueBeam",
        "item_proposals": "diffgrm.ranking.decoding.item_proposals:ItemProposals",
        "one_pass": "diffgrm.ranking.decoding.one_pass:OnePass",
        "left_to_right": "diffgrm.ranking.decoding.left_to_right:LeftToRight",
        "exhaustive": "diffgrm.ranking.decoding.exhaustive:Exhaustive",
    },
    "recommender": {
        "diffgrm": "diffgrm.recommenders.diffgrm:DiffGRMRecommender",
        "autoregressive": "diffgrm.recommenders.autoregressive:AutoregressiveRecommender",
        "one_pass": "diffgrm.recommenders.one_pass:OnePassRecommender",
        "sasrec": "diffgrm.recommenders.sasrec:SASRecRecommender",
        "sid_sasrec": "diffgrm.recommenders.sasrec:SidSASRecRecommender",
        "item_knn": "diffgrm.recommenders.neighbours:ItemKNNRecommender",
        "text_knn": "diffgrm.recommenders.neighbours:TextKNNRecommender",
        "popularity": "diffgrm.recommenders.popularity:PopularityRecommender",
        "random": "diffgrm.recommenders.random:RandomRecommender",
    },
}


def names(kind: str) -> list[str]:
    """Registered names of a kind of part, in order of registration."""
    return list(PARTS[kind])


def resolve(kind: str, name: str) -> type:
    """The class behind a registered name or a ``module:Class`` path.

    Raises:
        RecipeError: unknown name, module that cannot be imported, or class that is not in it.
    """
    path = PARTS[kind].get(name, name)
    module_name, _, class_name = path.partition(":")
    if not class_name:
        raise RecipeError(
            f"unknown {kind} {name!r}{did_you_mean(name, PARTS[kind])} (or give your own class as 'module:Class')"
        )
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise RecipeError(f"{kind} {name!r}: there is no module {error.name!r} to import") from error
    except AttributeError as error:
        raise RecipeError(f"{kind} {name!r}: module {module_name!r} has no class {class_name!r}") from error


class Setting:
    """One setting of a part: its type, default and explanation, read off the constructor."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        args = get_args(hint)
        self.name, self.hint, self.default = name, args[0], default
        self.help: str = next(a for a in args[1:] if isinstance(a, str))
        self.adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(strict=False))

    @property
    def type_name(self) -> str:
        """The type as a reader of the help text sees it."""
        return readable_type(self.hint)


def readable_type(hint: Any) -> str:
    """A type hint in words.

    >>> readable_type(Literal["a", "b"])
    'a | b'
    >>> readable_type(int | None)
    'int | null'
    """
    if get_origin(hint) is Annotated:
        return readable_type(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return " | ".join(str(a) for a in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(readable_type(a) for a in get_args(hint))
    if hint is type(None):
        return "null"
    if get_origin(hint) in (tuple, list):
        return f"list of {readable_type(get_args(hint)[0])}"
    return str(getattr(hint, "__name__", hint))


@lru_cache
def settings(kind: str, name: str) -> Mapping[str, Setting]:
    """The settings of a part: its constructor's ``Annotated[..., "text"]`` arguments."""
    constructor = resolve(kind, name).__init__  # type: ignore[misc]
    hints = get_type_hints(constructor, include_extras=True)
    return {
        parameter.name: Setting(parameter.name, hints[parameter.name], parameter.default)
        for parameter in inspect.signature(constructor).parameters.values()
        if get_origin(hints.get(parameter.name)) is Annotated
        and any(isinstance(a, str) for a in get_args(hints[parameter.name])[1:])
    }


def check_options(kind: str, name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Typed options with defaults filled in, and the problems found (one line each)."""
    try:
        known = settings(kind, name)
    except RecipeError as error:
        return dict(options), [str(error)]
    problems, values = [], {}
    for key, value in options.items():
        if key not in known:
            problems.append(f"{kind} {name!r} has no setting {key!r}{did_you_mean(key, known)}")
            continue
        try:
            values[key] = known[key].adapter.validate_python(value)
        except ValidationError as error:
            reason = "; ".join(str(e["msg"]) for e in error.errors())
            problems.append(f"{kind}.{key} = {value!r}: {reason}")
    for setting in known.values():
        if setting.name in options:
            continue
        if setting.default is inspect.Parameter.empty:
            problems.append(f"{kind} {name!r} needs the setting {setting.name!r} ({setting.help})")
        else:
            values[setting.name] = setting.default
    return {key: values[key] for key in known if key in values}, problems
