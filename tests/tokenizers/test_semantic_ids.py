from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation.schema import ModelFolderError, TokenizerError
from diffgrm.semantic_ids.semantic_ids import SemanticIds, tokenize_items
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    return generator.normal(size=(40, 1, 12)).repeat(10, 1).reshape(400, 12).astype(np.float32) + generator.normal(
        size=(400, 12)
    ).astype(np.float32) * np.float32(0.05)


@pytest.fixture(scope="module")
def tokenizer(vectors):
    return OPQTokenizer(4, 16, pca_width=12, iterations=5).fit(vectors)


def test_reassign_gives_distinct_sids_and_share_keeps_what_the_tokenizer_said(vectors, tokenizer):
    own, report = SemanticIds.build(tokenizer, vectors)
    shared, shared_report = SemanticIds.build(tokenizer, vectors, "share")
    assert len(np.unique(own.codes, axis=0)) == 400 == report.distinct_sids
    assert (shared.codes == tokenizer.encode(vectors)).all()
    groups = np.unique(shared.codes, axis=0, return_counts=True)[1]
    assert shared_report.distinct_sids == len(groups) < 400
    assert report.collision_groups == (groups > 1).sum() and report.largest_group == groups.max()
    assert report.colliding_items == groups[groups > 1].sum()
    assert report.moved_items == 400 - len(groups) and shared_report.moved_items == 0
    assert report.quantisation_error > report.error_before_repair == pytest.approx(shared_report.quantisation_error)


def test_the_report_tells_neighbours_from_strangers(vectors, tokenizer):
    report = SemanticIds.build(tokenizer, vectors)[1]
    shuffled = np.random.default_rng(0).permutation(vectors)
    lost = SemanticIds.build(OPQTokenizer(4, 16, pca_width=12, iterations=5).fit(shuffled), shuffled)[1]
    assert report.neighbour_agreement > 10 * report.chance_agreement
    assert report.neighbour_agreement == pytest.approx(lost.neighbour_agreement, abs=0.1)  # order of items is irrelevant
    assert all(0 < u <= 1 for u in report.utilisation) and all(0 < e <= 4 for e in report.entropy_bits)


def test_items_that_share_a_sid_have_one_number():
    ids = SemanticIds(np.array([[1, 2], [0, 3], [1, 2]]), 4, "share")
    numbers = ids.sid_of_item()
    assert numbers[0] == numbers[2] != numbers[1]


def test_codes_out_of_range_are_refused():
    with pytest.raises(TokenizerError, match=r"codes lie in 0\.\.4; expected 0\.\.3"):
        SemanticIds(np.array([[0, 4]]), 4)
    with pytest.raises(TokenizerError, match="expected whole numbers"):
        SemanticIds(np.array([0.5]), 4)


def test_saving_keeps_everything(tmp_path):
    ids = SemanticIds(np.array([[1, 2], [0, 3]]), 4, "share")
    ids.save(tmp_path / "sids.safetensors")
    again = SemanticIds.load(tmp_path / "sids.safetensors")
    assert (again.codes == ids.codes).all() and again.codebook_size == 4 and again.collisions == "share"


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "sids.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelFolderError, match="damaged or not a safetensors file"):
        SemanticIds.load(tmp_path / "sids.safetensors")
    with pytest.raises(ModelFolderError, match="is missing"):
        SemanticIds.load(tmp_path / "nowhere.safetensors")


def test_semantic_ids_come_from_the_cache_when_nothing_changed(vectors, tmp_path, monkeypatch):
    in_training, settings = np.arange(400) % 3 > 0, {"pca_width": 12, "iterations": 5}

    def made(settings=settings, collisions="reassign", seed=0, in_training=in_training):
        tokenizer = OPQTokenizer(4, 16, **settings, seed=seed)
        return tokenizer, *tokenize_items(tokenizer, vectors, in_training, collisions, settings, tmp_path)

    tokenizer, ids, report = made()
    made(settings | {"iterations": 4}), made(collisions="share"), made(seed=1), made(in_training=~in_training)
    assert len(list(tmp_path.iterdir())) == 5
    monkeypatch.setattr(OPQTokenizer, "_fit", lambda *_: pytest.fail("fitted again"))
    again, ids_again, report_again = made()
    assert (ids.codes == ids_again.codes).all() and report == report_again
    assert (tokenizer.encode(vectors) == again.encode(vectors)).all()


def test_damaged_cached_semantic_ids_are_made_again(vectors, tmp_path):
    def made():
        tokenizer = OPQTokenizer(4, 16, pca_width=12)
        return tokenize_items(tokenizer, vectors, np.ones(400, bool), "reassign", {}, tmp_path)

    ids, _ = made()
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"not safetensors")
    assert (made()[0].codes == ids.codes).all()
    assert (made()[0].codes == ids.codes).all() and len(list(tmp_path.iterdir())) == 1
