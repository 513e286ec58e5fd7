"""YAML from files that others may have written: aliases cannot make a short text large, nor nesting stop the process."""

from __future__ import annotations

from typing import Any

import yaml

LONGEST = 2**18  # characters; a recipe has some thousand
MOST = 2**16  # values of a text once every alias is written out


class YamlError(ValueError):
    """A text is not YAML, or larger than it may be."""


def read_yaml(text: str) -> Any:
    """The plain values of a YAML text; None of an empty one.

    Raises:
        YamlError: not YAML, longer than ``LONGEST``, with more than ``MOST`` values, or nested without end.
    """
    if len(text) > LONGEST:
        raise YamlError(f"it has {len(text):,} characters; expected at most {LONGEST:,}")
    loader = yaml.SafeLoader(text)
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
        inner = [one for pair in node.value for one in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    sizes[id(node)] = size = 1 + sum(_size(one, sizes) for one in inner)
    return size
