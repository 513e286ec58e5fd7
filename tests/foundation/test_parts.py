"""Parts: found, their settings read off the source, nested, built."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import yaml

import diffgrm
from diffgrm.foundation import registry
from diffgrm.foundation.part_settings import NotInSource, constant_of_source, settings_of_class, settings_of_source
from diffgrm.foundation.parts import Part, as_part, as_parts, merge, plain
from diffgrm.foundation.registry import PARTS, names, path_of, resolve, settings
from diffgrm.foundation.schema import RecipeError

ALL = [(kind, name) for kind in PARTS for name in names(kind)]
SOURCE = Path(diffgrm.__file__).parent


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_registered_path_is_a_class_of_the_package(kind, name):
    module, class_name = path_of(kind, name)
    tree = ast.parse(SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text())
    assert class_name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_source_of_a_part_tells_what_the_class_does(kind, name):
    read, asked = settings_of_source(*path_of(kind, name)), settings_of_class(resolve(kind, name))
    assert list(read) == list(asked)
    for key, setting in read.items():
        other = asked[key]
        assert setting.help and setting.help == other.help and setting.default == other.default
        assert setting.type_name == other.type_name and setting.nested == other.nested
        if setting.nested is None:
            assert setting.adapter.json_schema() == other.adapter.json_schema()


@pytest.mark.parametrize(("kind", "name"), [pair for pair in ALL if pair[0] in ("recommender", "retriever")])
def test_the_sections_of_a_recommender_are_read_off_its_source(kind, name):
    assert constant_of_source(*path_of(kind, name), "sections") == resolve(kind, name).sections


@pytest.mark.parametrize("name", names("objective"))
def test_the_sections_of_an_objective_are_read_off_its_source(name):
    assert constant_of_source(*path_of("objective", name), "sections") == resolve("objective", name).sections


def test_a_validator_of_a_module_comes_with_the_setting():
    size = settings("tokenizer", "opq")["codebook_size"].adapter
    with pytest.raises(ValueError, match="expected a power of two from 2 to 65536, found 100"):
        size.validate_python(100)


def test_a_constant_that_a_class_lacks_has_its_default():
    assert registry.constant("noising", "random", "nothing", 7) == 7


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A module of one's own, which must be imported to be asked."""
    (tmp_path / "lab.py").write_text(
        "from __future__ import annotations\n"
        "from typing import Annotated, ClassVar\n"
        "from diffgrm.foundation.parts import PartLike, PartOf, PartsLike, PartsOf, as_part, as_parts\n"
        "from diffgrm.learning.noising.full_mask import FullMaskNoising\n"
        "class Mixed(FullMaskNoising):\n"
        "    sections: ClassVar[tuple[str, ...]] = ('noising',)\n"
        "    def __init__(self, first: Annotated[PartLike, PartOf('noising'), 'first'] = 'confidence',\n"
        "        more: Annotated[PartsLike, PartsOf('noising'), 'more'] = ({'name': 'random', 'p': 0.25}, 'full_mask'),\n"
        "        seed: int = 0) -> None:\n"
        "        self.first, self.more, self.seed = as_part('noising', first), as_parts('noising', more), seed\n"
        "def helper(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "lab:Mixed"
    sys.modules.pop("lab", None)


def test_parts_nest_with_their_defaults_filled_in(lab):
    with pytest.raises(NotInSource):
        settings_of_source(*path_of("noising", lab))
    assert registry.constant("noising", lab, "sections", ()) == ("noising",)
    part = as_part("noising", lab)
    assert part.options["first"] == Part("noising", "confidence", as_part("noising", "confidence").options)
    assert [inner.name for inner in part.options["more"]] == ["random", "full_mask"]
    assert part.options["more"][0].options["p"] == 0.25
    assert part.flat() == {"name": lab, "first": "confidence", "more": [plain(part.options["more"][0]), "full_mask"]}
    assert part.flat()["more"][0]["name"] == "random" and part.flat()["more"][0]["p"] == 0.25
    assert as_part("noising", yaml.safe_load(yaml.safe_dump(part.flat()))) == part
    changed = as_part("noising", {"name": lab, "first": {"order": "most"}, "more": {"random": {"p": 0.5}, "1": {}}})
    assert changed.options["first"].options["order"] == "most" and changed.options["more"][0].options["p"] == 0.5
    assert [setting.type_name for setting in settings("noising", lab).values()] == [
        "part (noising)",
        "list of parts (noising)",
    ]


def test_constructors_get_parts_and_take_names(lab):
    built = as_part("noising", {"name": lab, "more": []}).build(seed=3)
    assert built.first == as_part("noising", "confidence") and built.more == () and built.seed == 3
    plainly = resolve("noising", lab)(first="random", more=["full_mask"])
    assert plainly.first.name == "random" and plainly.more[0].build() is not None


def test_a_seed_is_given_only_to_parts_that_take_one():
    assert as_part("noising", "full_mask").build(seed=3) is not None
    assert as_part("tokenizer", {"name": "random", "codebook_size": 8}).build(seed=3).seed == 3


def test_what_is_wrong_is_told_all_at_once(lab):
    with pytest.raises(RecipeError) as error:
        as_part("noising", {"name": lab, "frist": 1, "first": {"name": "confidence", "oder": 1}, "more": ["random", 5]})
    assert str(error.value).split("\n") == [
        f"noising {lab!r} has no setting 'frist'; did you mean 'first'?",
        "noising.first: noising 'confidence' has no setting 'oder'; did you mean 'order'?",
        "noising.more.1: expected a name or a mapping with 'name' and settings, found 5",
    ]
    with pytest.raises(RecipeError, match="unknown branch 'sd'; did you mean 'sid'"):
        as_parts("branch", ["sd"])


def test_settings_over_settings():
    base = {"a": "x", "b": [{"name": "p", "n": 1}, "q"]}
    assert merge(base, {"a": {"k": 1}, "b": {"p": {"n": 2}, "1": {"m": 3}}}) == {
        "a": {"name": "x", "k": 1},
        "b": [{"name": "p", "n": 2}, {"name": "q", "m": 3}],
    }
    assert merge(base, {"a": {"name": "y"}, "b": ["r"]}) == {"a": {"name": "y"}, "b": ["r"]}
    assert merge({"name": "p", "n": 1}, {"name": "q"}) == {"name": "q"} and merge("p", "q") == "q"
