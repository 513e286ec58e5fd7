"""What makes cached semantic IDs and vectors stale, and what does not."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from diffgrm import InteractionDataset, Recipe, leave_one_out
from diffgrm.data.dataset import Ragged
from diffgrm.data.marks import Marks, RowFacts
from diffgrm.foundation import storage
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.lsa import LSA
from diffgrm.semantic_ids.semantic_ids import tokenize_items
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer
from diffgrm.semantic_ids.tokenizers.random import RandomTokenizer

VECTORS = np.random.default_rng(0).normal(size=(400, 12)).astype(np.float32)
THIRDS = np.arange(400) % 3 > 0
EVENTS = Ragged.from_lists([[0, 1, 2], [2, 3]])
TEXTS = pl.DataFrame({"item_id": list("abc"), "text": ["red pot", "red pan", "blue pan"]})


class EventReader(RandomTokenizer):
    """Random digits; notes what it is shown."""

    reads_events = True
    seen: list[TokenizerContext] = []

    def _fit(self, context):
        self.seen.append(context)


def made(tokenizer, folder, context=None, collisions="reassign", settings=None):
    return tokenize_items(tokenizer, context or TokenizerContext(VECTORS, THIRDS), collisions, settings or {}, folder)


def files(folder):
    return len(list(folder.iterdir()))


def test_semantic_ids_come_from_the_cache_when_nothing_changed(tmp_path, monkeypatch):
    settings = {"pca_width": 12, "iterations": 5}

    def opq(seed=0, **context):
        context = TokenizerContext(VECTORS, **({"in_training": THIRDS} | context))
        tokenizer = OPQTokenizer(4, 16, **settings, seed=seed)
        return tokenizer, *made(tokenizer, tmp_path, context, settings=settings)

    tokenizer, ids, report = opq()
    opq(seed=1), opq(in_training=~THIRDS)
    made(OPQTokenizer(4, 16, **settings), tmp_path, settings=settings | {"iterations": 4})
    made(OPQTokenizer(4, 16, **settings), tmp_path, collisions="share", settings=settings)
    assert files(tmp_path) == 5
    monkeypatch.setattr(OPQTokenizer, "_fit", lambda *_: pytest.fail("fitted again"))
    for context in ({}, {"events": EVENTS, "folder": tmp_path, "device": "cuda"}):  # none of which it reads
        again, ids_again, report_again = opq(**context)
        assert (ids.codes == ids_again.codes).all() and report == report_again
        assert (tokenizer.encode(VECTORS) == again.encode(VECTORS)).all()
    opq_seed = TokenizerContext(VECTORS, THIRDS, seed=1)
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        made(OPQTokenizer(4, 16, **settings), tmp_path, opq_seed, settings=settings)


def test_damaged_cached_semantic_ids_are_made_again(tmp_path):
    ids, _ = made(OPQTokenizer(4, 16, pca_width=12), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"not safetensors")
    for _ in range(2):
        assert (made(OPQTokenizer(4, 16, pca_width=12), tmp_path)[0].codes == ids.codes).all()
    assert files(tmp_path) == 1


def edit(monkeypatch, name):
    """Let every file of this name look edited."""
    real = storage.file_digest
    monkeypatch.setattr(storage, "file_digest", lambda path: f"edited {name}" if str(path).endswith(name) else real(path))


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizers/random.py", "tokenizers/base.py", "tokenizers/context.py", "embeddings/base.py"),
        *("semantic_ids/collisions.py", "semantic_ids/code_keys.py", "semantic_ids/semantic_ids.py", "threads.py"),
    ],
)
def test_an_edit_of_the_librarys_code_makes_semantic_ids_again(name, tmp_path, monkeypatch):
    for _ in range(2):
        made(RandomTokenizer(4, 16), tmp_path)
    edit(monkeypatch, name)
    for _ in range(2):
        made(RandomTokenizer(4, 16), tmp_path)
    assert files(tmp_path) == 2


def test_an_edit_of_ones_own_tokenizer_or_of_what_it_inherits_from_makes_semantic_ids_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    parent, child = tmp_path / "lab_parent.py", tmp_path / "lab_child.py"
    base = "from diffgrm.semantic_ids.tokenizers.random import RandomTokenizer\nclass Parent(RandomTokenizer): pass\n"
    parent.write_text(base)
    child.write_text("from lab_parent import Parent\nclass Child(Parent): pass\n")
    cache = tmp_path / "cache"
    for number, edited in enumerate([None, parent, child], start=1):
        if edited:
            edited.write_text(edited.read_text() + "# edited\n")
        for _ in range(2):
            made(resolve("tokenizer", "lab_child:Child")(4, 16), cache)
        assert files(cache) == number


@pytest.mark.parametrize("name", ["embeddings/lsa.py", "embeddings/base.py", "semantic_ids/threads.py"])
def test_an_edit_of_an_encoders_code_makes_vectors_again(name, tmp_path, monkeypatch):
    for _ in range(2):
        embed_items(LSA(width=2), TEXTS, np.ones(3, dtype=bool), tmp_path)
    edit(monkeypatch, name)
    for _ in range(2):
        embed_items(LSA(width=2), TEXTS, np.ones(3, dtype=bool), tmp_path)
    assert files(tmp_path) == 2


def test_nothing_is_cached_of_a_class_that_has_no_file(tmp_path, monkeypatch):
    notebook = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    source = "class Typed(RandomTokenizer): pass\nclass Encoder(LSA): pass"
    exec(source, notebook.__dict__ | {"RandomTokenizer": RandomTokenizer, "LSA": LSA}, notebook.__dict__)
    ids, _ = made(notebook.Typed(4, 16), tmp_path)
    assert (ids.codes == made(RandomTokenizer(4, 16), tmp_path / "other")[0].codes).all()
    assert embed_items(notebook.Encoder(width=2), TEXTS, np.ones(3, dtype=bool), tmp_path).shape == (3, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_events_are_part_of_the_key_where_they_are_read(tmp_path):
    others = Ragged.from_lists([[0, 1], [2, 2, 3]])
    for events in (EVENTS, others, EVENTS):
        made(EventReader(4, 16), tmp_path, TokenizerContext(VECTORS, THIRDS, events))
    assert files(tmp_path) == 2
    with pytest.raises(TokenizerError, match="EventReader learns from training events, and there are none"):
        EventReader(4, 16).fit(TokenizerContext.of(VECTORS))


def test_what_is_known_of_events_is_part_of_the_key_too(tmp_path):
    both = EventSettings(event="type", targets=["buy"], context=["view"])
    bought = both.model_copy(update={"targets": ("buy", "view"), "context": ()})
    types = np.array([0, 1, 0, 0, 1], dtype=np.int16)
    known = [Marks(both, types), Marks(bought, types), Marks(both, types, np.arange(5.0)), Marks(both, 1 - types)]
    told = [replace(EVENTS, marks=marks) for marks in known]
    told.append(replace(EVENTS, facts=RowFacts(np.array([7, 8]))))
    for events in (EVENTS, *told, *told):
        made(EventReader(4, 16), tmp_path, TokenizerContext(VECTORS, THIRDS, events))
    assert files(tmp_path) == 6


def test_events_are_hidden_from_those_that_do_not_say_they_read_them(monkeypatch):
    monkeypatch.setattr(EventReader, "reads_events", False)
    EventReader(4, 16).fit(TokenizerContext(VECTORS, THIRDS, EVENTS))
    assert EventReader.seen[-1].events is None


def test_a_recommender_shows_the_training_events_its_run_folder_and_its_seed(toy: InteractionDataset, tmp_path):
    tokenizer = {"name": f"{__name__}:EventReader", "n_digits": 3, "codebook_size": [30, 20, 10]}
    training = {"epochs": 1, "batch_size": 512, "validation_users": 10}
    recipe = Recipe(recommender="sid_sasrec", tokenizer=tokenizer, seed=3, training=training, model={"width": 16})
    recommender = resolve("recommender", "sid_sasrec")(recipe).fit(toy, run_folder=tmp_path, progress=False)
    context, split = EventReader.seen[-1], leave_one_out(toy)
    assert (context.events.values == split.train.values).all() and (context.in_training == (split.item_counts > 0)).all()
    assert context.seed == 3 and context.folder == tmp_path / "tokenizer"
    assert recommender.semantic_ids.codebook_sizes == (30, 20, 10)
    again = type(recommender).load(recommender.save(tmp_path / "model"), trust_code=True)
    assert again.semantic_ids.codebook_sizes == again.parts["sids"].tokenizer.codebook_sizes == (30, 20, 10)
