"""Docstrings for the site: roles such as ``:meth:`` become plain code, as Markdown knows no roles."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:meth|func|class|mod|attr|data):`~?([^`]+)`")


def without_roles(text: str) -> str:
    """A docstring in which a role's target is code.

    >>> without_roles("see :meth:`Recommender.to`")
    'see `Recommender.to`'
    """
    return ROLE.sub(r"`\1`", text)


class PlainRoles(griffe.Extension):
    """Rewrites every docstring before it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See :func:`without_roles`."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
