"""The site: its nav names every page, its pictures are what the code does, and nothing is loaded from other hosts."""

from __future__ import annotations

import re
import tomllib

import numpy as np
import pytest
import yaml

import diffgrm
from diffgrm.foundation.presets import preset_names
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import names
from diffgrm.foundation.sections import Section
from helpers.docs import DOCS, docs_script


def pages(nav):
    """The pages of a nav, in order."""
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else pages(value)


def test_the_nav_names_every_page_once():
    nav = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages(nav)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_links_between_pages_lead_to_files():
    stubs = {DOCS / f"{name}.md" for name in ("changelog", "contributing", "security")}  # links where there is no site
    for page in set(DOCS.rglob("*.md")) - stubs:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(DOCS)}: {target}"
            assert DOCS in (page.parent / target).resolve().parents, f"{page.relative_to(DOCS)}: {target} leaves docs/"


def test_files_of_the_root_are_pages_whose_links_lead_to_files():
    hooks, found = docs_script("site_hooks"), set()
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        stub = (DOCS / f"{name.lower()}.md").read_text()
        assert (
            stub == f"See [{name}.md](../{name}.md) in the root of the repository.\n"
            and (DOCS.parent / f"{name}.md").is_file()
        )
        page = hooks.on_page_markdown(stub, page=None)
        assert page.startswith(f"# {name.capitalize()}\n")
        found |= set(re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page))
    assert {"serving.md", "rules.md"} <= found == {target for target in found if (DOCS / target).is_file()}


def test_the_reference_has_the_whole_public_interface():
    reference = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert set(re.findall(r"^::: diffgrm\.(\w+)$", reference, flags=re.M)) == set(diffgrm.__all__)


def test_the_page_of_recipes_names_them_all():
    known = set(re.findall(r"`([\w-]+)`", (DOCS / "recipes.md").read_text()))
    assert known >= {*names("recommender"), *names("retriever"), *preset_names()}


def test_the_page_of_installing_names_every_extra():
    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"^\| `([\w-]+)` \|", (DOCS / "how-to" / "install.md").read_text(), flags=re.M)
    assert sorted(named) == sorted(extras)


def plain_settings():
    """Section and name of every setting that belongs to no part, whatever recommender uses it."""
    for name, field in Recipe.model_fields.items():
        if isinstance(field.default, Section):
            yield from ((name, key) for key in type(field.default).model_fields)


def test_the_page_of_settings_tells_every_setting_of_every_part():
    hooks = docs_script("site_hooks")
    table = "\n".join(hooks.tables_of_settings())
    written = {row for row in re.findall(r"^\| `(\w+\.\w+)` \|", table, flags=re.M)}
    assert {f"{name}.{key}" for name, key in plain_settings()} <= written and "documents.index_documents" in written
    assert "| `training.epochs` |" in table and "### tokenizer: `simhash`" in table
    assert hooks.on_page_markdown("a <!-- settings --> b", page=None) == f"a {table} b"


def test_the_first_page_and_the_readme_have_one_example():
    example = re.compile(r"^```python\n(from diffgrm import HybridRecommender.*?)^```", flags=re.M | re.S)
    readme, index = (example.search(page.read_text())[1] for page in (DOCS.parent / "README.md", DOCS / "index.md"))
    assert readme == index


DOCSTRING = """See :meth:`Recommender.to` and :func:`~diffgrm.load`, ``k``.

Args:
    k, only: as there,
        and here.
    without: nothing.
"""
FOR_THE_SITE = """See `Recommender.to` and `diffgrm.load`, ``k``.

Args:
    k: as there,
        and here.
    only: as there,
        and here.
    without: nothing.
"""


def test_docstrings_are_written_for_markdown():
    pytest.importorskip("griffe")
    assert docs_script("site_docstrings").for_the_site(DOCSTRING) == FOR_THE_SITE


def test_what_other_hosts_would_be_asked_for_is_found():
    found = docs_script("site_hooks").loaded_from_elsewhere(
        '<a href="https://arxiv.org/">paper</a> <script src="app.js"></script> <script async src="https://a.b/c.js"></script>'
        '<link rel="stylesheet" href="//fonts.x/css"> <link rel="canonical" href="https://me/"> <img src=https://p.q/r.png>'
    )
    assert found == ["https://a.b/c.js", "//fonts.x/css", "https://p.q/r.png"]


# ---- pictures of the method ---------------------------------------------------------------------------------------


@pytest.fixture
def method():
    return docs_script("draw_method")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_the_page_of_the_method_shows_what_its_script_draws(method):
    shown = re.findall(r"!\[[^\]]+\]\(method/(\w+)\.svg\)", (DOCS / "method.md").read_text())
    assert sorted(shown) == sorted(method.PICTURES) == sorted(path.stem for path in (DOCS / "method").glob("*.svg"))


def test_of_the_items_shown_two_collide_and_one_of_them_moves(method):
    _, before, after = method.encoded()
    rows = method.chosen()
    changed = before.codes[rows] != after.codes[rows]
    assert len(np.unique(before.codes[rows], axis=0)) == len(rows) - 1 == len(rows) - changed.any(1).sum()
    assert len(np.unique(after.codes, axis=0)) == len(after)
    text, _, digits, own = method.pse().axes
    assert texts(text) == method.split().dataset.item_table["title"].gather(rows).to_list()
    assert sorted(texts(digits)) == sorted(map(str, before.codes[rows].ravel()))
    assert sorted(texts(own)) == sorted(map(str, after.codes[rows].ravel()))


def test_the_views_shown_are_nested_and_hide_the_least_sure_digits_most(method, fitted):
    sure, views = method.noised(fitted)
    times = views.mask[0].sum(0).numpy()
    assert sorted(times) == [1, 2, 3] and (np.argsort(times) == np.argsort(sure)[::-1]).all()
    bars = method.ocn(fitted).axes[0]
    assert [round(bar.get_height(), 6) for bar in bars.patches] == [round(p, 6) for p in sure]


def test_the_search_shown_is_the_recommenders(method, fitted):
    steps, items = method.cpd(fitted).axes
    table = fitted.beams(method.HISTORY, k=10, show=4)
    codes = [str(code) for row in table["digits"] for code in row if code is not None]
    assert sorted(text for text in texts(steps) if text.isdigit()) == sorted(codes)
    best = fitted.recommend([method.HISTORY], k=4)["item_id"].to_list()
    titles = dict(fitted.item_table.select("item_id", "title").iter_rows())
    assert texts(items) == [f"{place}. {titles[item]}" for place, item in enumerate(best, start=1)]


# ---- figures of results -------------------------------------------------------------------------------------------


def test_pages_of_results_show_what_their_script_draws():
    script = docs_script("draw_results")
    for name in script.PICTURES:
        assert (DOCS / "results" / f"{name}.svg").exists()
        assert f"]({name}.svg)" in (DOCS / "results" / f"{name.split('-')[0]}.md").read_text()


@pytest.mark.parametrize(
    ("page", "files", "run"), [("quality", "best-{}", "best"), ("generation", "{}", "generative-best")]
)
def test_bars_and_the_page_tell_the_same_numbers(page, files, run):
    script = docs_script("draw_results")
    text = (DOCS / "results" / f"{page}.md").read_text()
    bars = script.PICTURES[page]().axes[0]
    for data in script.DATA:
        found = script.rows(f"{page}/{files}".format(data))
        for name in ("sasrec", run):
            value = f"{found[name]['metrics']['ndcg@10']:.4f}"[1:]
            assert value in texts(bars) and value in text
