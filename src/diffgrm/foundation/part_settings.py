"""The settings of parts, read off the source of their constructors: no module of a part is imported for it.

A setting is an argument written ``Annotated[type, ..., "what it does"]``, or with a module-level name for such a type.
Where the source alone does not tell (and for parts outside this package) the class is imported and asked.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter

from diffgrm.foundation.schema import RecipeError

PACKAGE = "diffgrm"
SOURCE = Path(__file__).resolve().parents[1]
LIGHT = {*sys.stdlib_module_names, "annotated_types", "pydantic", "typing_extensions"}  # top-level modules
NO_SETTINGS = {"ABC", "nn.Module", "object"}  # foreign bases whose constructors have none


@dataclass(frozen=True)
class PartOf:
    """Marks a setting whose value is a part: ``Annotated[PartLike, PartOf("objective"), "what it does"]``.

    Attributes:
        kind: of the part, as in the registry.
    """

    kind: str


@dataclass(frozen=True)
class PartsOf(PartOf):
    """Marks a setting whose value is a list of parts: ``Annotated[PartsLike, PartsOf("branch"), "what it does"]``."""


@dataclass(frozen=True)
class Local:
    """Marks a setting that means something on one machine only: model folders keep ``null`` instead.

    Texts of it are paths; in a suite, relative ones are read from the folder of the suite file.

    Attributes:
        paths: only what is a path does: an absolute one, or one at which something lies here.
    """

    paths: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value means something here only."""
        return not self.paths or (isinstance(value, str) and (Path(value).is_absolute() or os.path.lexists(value)))


class Setting:
    """One setting of a part: its type, default and explanation, read off the constructor.

    Attributes:
        default: as written, ``inspect.Parameter.empty`` where there is none.
        nested: what kind of part the value is, None for plain values.
        local: which values model folders do not keep; None: they keep all.
    """

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        args = get_args(hint)
        self.name, self.annotation, self.hint, self.default = name, hint, args[0], default
        self.help: str = next(a for a in args[1:] if isinstance(a, str))
        self.nested: PartOf | None = next((a for a in args[1:] if isinstance(a, PartOf)), None)
        self.local: Local | None = next((a for a in args[1:] if isinstance(a, Local)), None)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Checks and converts plain values.

        Raises:
            RecipeError: no value of that type can be read.
        """
        try:
            return TypeAdapter(self.annotation, config=ConfigDict(strict=False))
        except PydanticSchemaGenerationError as error:
            kind = readable_type(self.hint)
            raise RecipeError(f"the setting {self.name!r} is of the kind {kind}, which a recipe cannot hold") from error

    @property
    def type_name(self) -> str:
        """The type as a reader of the help text sees it."""
        if self.nested is not None:
            return f"{'list of parts' if isinstance(self.nested, PartsOf) else 'part'} ({self.nested.kind})"
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


def is_setting(hint: Any) -> bool:
    """Whether a hint is ``Annotated`` with a text."""
    return get_origin(hint) is Annotated and any(isinstance(a, str) for a in get_args(hint)[1:])


def settings_of_class(part: type) -> dict[str, Setting]:
    """The settings of a class that is imported."""
    constructor = part.__init__  # type: ignore[misc]
    hints = get_type_hints(constructor, include_extras=True)
    return {
        parameter.name: Setting(parameter.name, hints[parameter.name], parameter.default)
        for parameter in inspect.signature(constructor).parameters.values()
        if is_setting(hints.get(parameter.name))
    }


def settings_of_source(module: str, name: str) -> dict[str, Setting]:
    """The settings of a class, of which only the source is read.

    Raises:
        NotInSource: the source alone does not tell.
    """
    found = {}
    for home, part in _lineage(module, name):
        if part.decorator_list:
            raise NotInSource(f"{part.name} is decorated")
        constructor = next((n for n in part.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if constructor is not None:
            for argument, default in _arguments(constructor):
                if (annotation := home.annotated(argument.annotation)) is not None:
                    hint = annotation[0].value(annotation[1])
                    value = inspect.Parameter.empty if default is None else home.value(default)
                    if is_setting(hint):
                        found[argument.arg] = Setting(argument.arg, hint, value)
            break
    return found


def constant_of_source(module: str, name: str, constant: str) -> Any:
    """A constant in the body of a class or of its bases.

    Raises:
        NotInSource: the source alone does not tell.
        KeyError: the class has no such constant.
    """
    for home, part in _lineage(module, name):
        for node in part.body:
            if constant in _assigned(node):
                return home.value(node.value, classes=True)  # type: ignore[attr-defined]
    raise KeyError(constant)


class NotInSource(Exception):
    """What is asked of a module cannot be told from its source alone."""


class _Source:
    """A module of this package, of which the source is read and nothing is run but what is asked for."""

    def __init__(self, name: str) -> None:
        path = SOURCE.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")
        if name.split(".")[0] != PACKAGE or not path.is_file():
            raise NotInSource(f"{name} is no module of {PACKAGE}")
        self.name = name
        self.nodes: dict[str, ast.stmt] = {}  # what stands behind each name of the module
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.nodes |= {alias.asname or alias.name.split(".")[0]: node for alias in node.names}
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.nodes[node.name] = node
            else:
                self.nodes |= dict.fromkeys(_assigned(node), node)

    def imported(self, name: str) -> tuple[str, str] | None:
        """Module and name that a name is imported from, None for what is of this module or is a module itself."""
        node = self.nodes.get(name)
        if not isinstance(node, ast.ImportFrom) or node.level:
            return None
        return str(node.module), next(alias.name for alias in node.names if (alias.asname or alias.name) == name)

    def annotated(self, annotation: ast.expr | None) -> tuple[_Source, ast.expr] | None:
        """Where an ``Annotated[...]`` stands that an annotation is or names; None for all other annotations."""
        if isinstance(annotation, ast.Subscript):
            return (self, annotation) if ast.unparse(annotation.value).split(".")[-1] == "Annotated" else None
        if not isinstance(annotation, ast.Name):
            return None
        if (origin := self.imported(annotation.id)) is not None:
            module, name = origin
            return _source(module).annotated(ast.Name(name)) if module.startswith(f"{PACKAGE}.") else None
        node = self.nodes.get(annotation.id)
        return self.annotated(node.value) if isinstance(node, ast.Assign | ast.AnnAssign) else None

    def value(self, node: ast.expr, classes: bool = False) -> Any:
        """What an expression is.

        Args:
            classes: whether it may name classes of this package, of which it sees the constants.
        """
        code = compile(ast.fix_missing_locations(ast.Expression(node)), self.name, "eval")
        try:
            return eval(code, self._names_in(node, classes))
        except NotInSource:
            raise
        except Exception as error:  # whatever the expression raises, the class is asked instead
            raise NotInSource(f"{self.name}: {ast.unparse(node)}: {error}") from error

    def _names_in(self, node: ast.AST, classes: bool) -> dict[str, Any]:
        used = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
        return {"__name__": self.name} | {name: self.named(name, classes) for name in used if name in self.nodes}

    def named(self, name: str, classes: bool = False) -> Any:
        """What a name of the module stands for; see :meth:`value`."""
        node = self.nodes.get(name)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return self.value(node.value, classes)
        if isinstance(node, ast.FunctionDef):
            return self._function(node)
        if isinstance(node, ast.ClassDef) and classes:
            return _Constants(self.name, name)
        if (origin := self.imported(name)) is not None:
            module, name = origin
            if _is_light(module):
                return getattr(importlib.import_module(module), name)
            return _source(module).named(name, classes)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname in (name, None) and _is_light(alias.name):
                    found = importlib.import_module(alias.name)
                    return found if alias.asname else sys.modules[name]
        raise NotInSource(f"{self.name}: {name} takes running the module")

    def _function(self, node: ast.FunctionDef) -> Any:
        """A function of the module, compiled on its own, without its annotations."""
        bare = copy.deepcopy(node)
        bare.returns = None
        for argument in ast.walk(bare.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        names: dict[str, Any] = self._names_in(bare, classes=False)
        exec(compile(ast.fix_missing_locations(ast.Module([bare], [])), self.name, "exec"), names)
        return names[node.name]


class _Constants:
    """The constants of a class, as expressions in the bodies of its heirs name them."""

    def __init__(self, module: str, name: str) -> None:
        self._home = module, name

    def __getattr__(self, constant: str) -> Any:
        return constant_of_source(*self._home, constant)


@lru_cache
def _source(module: str) -> _Source:
    return _Source(module)


def _is_light(module: str) -> bool:
    return module.split(".")[0] in LIGHT or module.startswith(f"{PACKAGE}.foundation.")


def _assigned(node: ast.stmt) -> list[str]:
    """The plain names that a statement gives a value."""
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) and node.value is not None else []
    return [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []


def _lineage(module: str, name: str) -> list[tuple[_Source, ast.ClassDef]]:
    """A class and its bases in this package, in the order in which Python looks things up in them."""
    found = list(_ancestors(module, name))
    names = [part.name for _, part in found]
    return [pair for place, pair in enumerate(found) if pair[1].name not in names[place + 1 :]]


def _ancestors(module: str, name: str) -> Iterator[tuple[_Source, ast.ClassDef]]:
    home = _source(module)
    if (origin := home.imported(name)) is not None:
        yield from _ancestors(*origin)
        return
    part = home.nodes.get(name)
    if not isinstance(part, ast.ClassDef):
        raise NotInSource(f"{module} has no class {name} of its own")
    yield home, part
    for base in map(ast.unparse, part.bases):
        if base not in NO_SETTINGS:
            yield from _ancestors(module, base)


def _arguments(constructor: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Arguments with their defaults."""
    arguments = constructor.args
    plain = [*arguments.posonlyargs, *arguments.args]
    without: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    yield from zip(plain, [*without, *arguments.defaults], strict=True)
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
