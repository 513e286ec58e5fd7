"""Docstrings as the site reads them: roles such as ``:meth:`` become plain code, names that share a line one line each."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:meth|func|class|mod|attr|data):`~?([^`]+)`")
JOINT = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<words>.+(?:\n(?P=indent) {4}.+)*)$", flags=re.M)


def for_the_site(text: str) -> str:
    """A docstring for a reader of Markdown: the target of a role is code, and ``k, only: words`` are two entries."""
    return JOINT.sub(_one_by_one, ROLE.sub(r"`\1`", text))


def _one_by_one(found: re.Match[str]) -> str:
    return "\n".join(f"{found['indent']}{name}: {found['words']}" for name in found["names"].split(", "))


class ForTheSite(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See :func:`for_the_site`."""
        if obj.docstring is not None:
            obj.docstring.value = for_the_site(obj.docstring.value)
