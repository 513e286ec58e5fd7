"""Hooks of the site's build.

A page that would load something from another host is a warning, and so fails ``make docs``; the page of settings is
written from the recipe, which reads them off the source of the parts; and some pages are files of the repository's root.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from diffgrm.foundation.recipe import Recipe, SettingRow, rows_of_other_parts
from diffgrm.foundation.shown import markdown as escaped

logger = logging.getLogger("mkdocs.hooks.site")
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\ssrc=[\"']?((?:https?:)?//[^\s\"'>]+)"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next))[^>]*\shref=[\"']?((?:https?:)?//[^\s\"'>]+)"
)

FROM_THE_ROOT = re.compile(r"See \[([A-Z]+\.md)\]\(\.\./\1\) in the root of the repository\.")
LINK_OF_THE_ROOT = re.compile(r"\]\((?:docs/|([A-Z]+\.md))")


def loaded_from_elsewhere(page: str) -> list[str]:
    """Addresses of other hosts that a browser would load with a page of HTML; links that a reader may follow are none."""
    return [script or link for script, link in LOADED.findall(page)]


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of a built page that loads something from another host."""
    for address in loaded_from_elsewhere(output):
        logger.warning("%s would load %s: put it into docs/assets", page.file.src_uri, address)
    return output


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the tables of settings, and files of the root, where a page asks for them."""
    markdown = FROM_THE_ROOT.sub(lambda found: file_of_the_root(found[1]), markdown)
    return markdown.replace("<!-- settings -->", "\n".join(tables_of_settings()))


def file_of_the_root(name: str) -> str:
    """A file of Markdown beside docs/, its links as they are from a page in docs/ of the same name in small letters."""
    text = Path(__file__).resolve().parents[1].joinpath(name).read_text(encoding="utf-8")
    return LINK_OF_THE_ROOT.sub(lambda link: "](" + (link[1] or "").lower(), text)


def tables_of_settings() -> Iterator[str]:
    """Lines of Markdown: a table for each section of the default recipe and for those of documents alone, then one for each
    other part."""
    recipe = Recipe()
    of_documents = (row for row in Recipe(recommender="documents").table() if section_of(row) not in recipe.sections)
    for section, rows in groupby(chain(recipe.table(), of_documents), key=section_of):
        yield from table(f"## `{section}`", rows)
    other = sorted(rows_of_other_parts(recipe), key=place)  # parts of one name stand together
    yield "## Other parts"
    for (kind, name), rows in groupby(other, key=place):
        yield from table(f"### {kind}: `{name}`", rows)


def section_of(row: SettingRow) -> str:
    """The section of a setting."""
    return row.path.partition(".")[0]


def place(row: SettingRow) -> tuple[str, str]:
    """The section of a setting of another part, and the part's name, with which its help begins."""
    return section_of(row), row.help.partition("]")[0].lstrip("[")


def table(title: str, rows: Iterable[SettingRow]) -> Iterator[str]:
    """Lines of a table of settings."""
    yield from (title, "", "| setting | values | default | |", "|---|---|---|---|")
    for row in rows:
        words = row.help.partition("] ")[2] if row.help.startswith("[") else row.help
        yield f"| `{row.path}` | {escaped(row.type)} | {escaped(row.default)} | {escaped(words)} |"
    yield ""
