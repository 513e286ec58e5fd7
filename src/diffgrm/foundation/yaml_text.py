"""YAML from files that others may have written: aliases cannot make a short text large, nor nesting stop the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

LONGEST = 2**18  # characters; a recipe has some thousand
MOST = 2**16  # values of a text once every alias is written out


class YamlError(ValueError):
    """A text is not YAML, or larger than it may be."""


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: it cannot be read.
        YamlError: it is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"it is no text in UTF-8, for byte {error.start:,} is 0x{error.object[error.start]:02x}") from error


def read_yaml(text: str) -> Any:
    """The plain values of a YAML text; None of an empty one.

    Raises:
        YamlError: not YAML, longer than ``LONGEST``, with more than ``MOST`` values, nested without end, or with a mapping
            that has a key twice, of which one would be lost.
    """
    if len(text) > LONGEST:
        raise YamlError(f"it has {len(text):,} characters; expected at most {LONGEST:,}")
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:  # of characters
        raise YamlError(str(error)) from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if (size := _size(node, {})) > MOST:
            raise YamlError(f"its aliases make {size:,} values of it; expected at most {MOST:,}")
        return loader.construct_document(node)
    except RecursionError as error:
        raise YamlError("it is nested too deeply, or holds itself") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # the last three: a number, a date, a key
        raise YamlError(str(error)) from error
    finally:
        loader.dispose()


def spelled(value: Any, hint: Any) -> Any:
    """A value as the text that it was written as, where a hint allows that text and YAML has read it as something else.

    >>> spelled(32, Literal["auto", "32"]), spelled(True, Literal["on", "off"]), spelled(32, int)
    ('32', 'on', 32)
    """
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return type(value)(spelled(one, hint) for one in value)
    return next((text for text in _texts(hint) if _is_read_as(text, value)), value)


def _is_read_as(text: str, value: Any) -> bool:
    try:
        read = read_yaml(text)
    except YamlError:
        return False
    return type(read) is type(value) and bool(read == value)


def _texts(hint: Any) -> list[str]:
    """The texts that a type hint names one by one."""
    if get_origin(hint) is Literal:
        return [text for text in get_args(hint) if isinstance(text, str)]
    return [text for inner in get_args(hint) for text in _texts(inner)]


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Values in a node where every alias is written out.

    Raises:
        RecursionError: the node holds itself.
    """
    if (known := sizes.get(id(node))) is not None:
        if known == 0:
            raise RecursionError
        return known
    sizes[id(node)] = 0  # under way
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node)
        inner = [one for pair in node.value for one in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    sizes[id(node)] = size = 1 + sum(_size(one, sizes) for one in inner)
    return size


def _refuse_twice(node: yaml.MappingNode) -> None:
    """Refuse a mapping with a key twice; YAML forbids it, and the reader would take the last one without a word."""
    met: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and (first := met.setdefault((key.tag, key.value), key)) is not key:
            lines = [one.start_mark.line + 1 for one in (first, key)]
            where = f"line {lines[0]}" if lines[0] == lines[1] else f"lines {lines[0]} and {lines[1]}"
            raise YamlError(f"the key {key.value!r} stands twice in one mapping ({where}); say it once")
