from __future__ import annotations

import json

import numpy as np
import pytest

from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import ModelFolderError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids import semantic_ids
from diffgrm.semantic_ids.semantic_ids import SemanticIds, TokenizerReport
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer

of = TokenizerContext.of


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    return generator.normal(size=(40, 1, 12)).repeat(10, 1).reshape(400, 12).astype(np.float32) + generator.normal(
        size=(400, 12)
    ).astype(np.float32) * np.float32(0.05)


@pytest.fixture(scope="module")
def tokenizer(vectors):
    return OPQTokenizer(4, 16, pca_width=12, iterations=5).fit(of(vectors))


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


def test_the_codes_are_a_copy_that_nobody_writes_to():
    given = np.array([[0, 1], [1, 0]])
    ids = SemanticIds(given, (2, 2))
    given[0, 0] = 1
    assert ids.codes.tolist() == [[0, 1], [1, 0]] and not ids.codes.flags.writeable


def test_the_report_tells_neighbours_from_strangers(vectors, tokenizer):
    report = SemanticIds.build(tokenizer, vectors)[1]
    shuffled = np.random.default_rng(0).permutation(vectors)
    lost = SemanticIds.build(OPQTokenizer(4, 16, pca_width=12, iterations=5).fit(of(shuffled)), shuffled)[1]
    assert report.neighbour_agreement > 10 * report.chance_agreement
    assert report.neighbour_agreement == pytest.approx(lost.neighbour_agreement, abs=0.1)  # order of items is irrelevant
    assert all(0 < u <= 1 for u in report.utilisation) and all(0 < e <= 4 for e in report.entropy_bits)


@pytest.mark.parametrize("at_once", [1, 7, 2**16])
@pytest.mark.parametrize("count", [2, 9, 400])
def test_neighbour_agreement_is_that_of_all_pairs_of_items(vectors, tokenizer, count, at_once, monkeypatch):
    """However many items are compared at once; ties in digits count by the chance that they are drawn."""
    monkeypatch.setattr(semantic_ids, "ITEMS_AT_ONCE", at_once)
    some, near = vectors[:count], min(10, count - 1)
    ids, report = SemanticIds.build(tokenizer, some)
    unit = some / np.linalg.norm(some, axis=1, keepdims=True)
    wanted = []
    for item in range(count):
        others = np.delete(np.arange(count), item)
        nearest = others[np.argsort(-(unit[others] @ unit[item]), kind="stable")[:near]]
        shared = (ids.codes[others] == ids.codes[item]).sum(1)
        cut = np.sort(shared)[-near]
        chance = (near - (shared > cut).sum()) / (shared == cut).sum()
        of_nearest = (ids.codes[nearest] == ids.codes[item]).sum(1)
        wanted.append(((of_nearest > cut) + (of_nearest == cut) * chance).sum() / near)
    assert report.neighbour_agreement == pytest.approx(np.mean(wanted), abs=1e-9)


def test_items_that_share_a_sid_have_one_number():
    ids = SemanticIds(np.array([[1, 2], [0, 3], [1, 2]]), (4, 4), "share")
    numbers = ids.sid_of_item()
    assert numbers[0] == numbers[2] != numbers[1]


def test_codes_out_of_range_are_refused():
    with pytest.raises(TokenizerError, match=r"codes of digit 1 lie in 4\.\.4; expected 0\.\.3"):
        SemanticIds(np.array([[0, 4]]), (4, 4))
    with pytest.raises(TokenizerError, match=r"digit 0 lie in 2\.\.3; .* 0\.\.2\n.*digit 2 lie in -1\.\.0; .* 0\.\.1"):
        SemanticIds(np.array([[2, 4, 0], [3, 0, -1]]), (3, 5, 2))
    with pytest.raises(TokenizerError, match=r"codes have 2 digits, but codebook_sizes are 3: \(4, 4, 4\)"):
        SemanticIds(np.array([[0, 4]]), (4, 4, 4))
    with pytest.raises(TokenizerError, match="expected whole numbers"):
        SemanticIds(np.array([0.5]), (4,))


@pytest.mark.parametrize("sizes", [(4, 4), (2, 4)])
def test_saving_keeps_everything(sizes, tmp_path):
    ids = SemanticIds(np.array([[1, 2], [0, 3]]), sizes, "share")
    ids.save(tmp_path / "sids.safetensors")
    again = SemanticIds.load(tmp_path / "sids.safetensors")
    assert (again.codes == ids.codes).all() and again.collisions == "share"
    assert again.codebook_sizes == sizes and again.codebook_size == 4


def test_a_file_without_sizes_has_equal_ones(tmp_path):
    facts = {"codebook_size": 4, "collisions": "reassign"}
    State({"codes": np.array([[1, 2, 0], [0, 3, 1]], dtype=np.int32)}, facts).save(tmp_path / "sids.safetensors")
    assert SemanticIds.load(tmp_path / "sids.safetensors").codebook_sizes == (4, 4, 4)
    SemanticIds(np.array([[1, 2]]), (4, 4)).save(tmp_path / "equal.safetensors")
    assert State.load(tmp_path / "equal.safetensors").facts == facts  # as they were before digits could differ


def test_the_report_counts_the_codes_that_a_digit_has(vectors):
    tokenizer = resolve("tokenizer", "random")(n_digits=3, codebook_size=(3, 16, 40)).fit(of(vectors))
    report = SemanticIds.build(tokenizer, vectors)[1]
    assert report.utilisation == (1.0, 1.0, 1.0) and report.entropy_bits[0] <= np.log2(3) < report.entropy_bits[1] <= 4
    assert TokenizerReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    rows = dict(report.rows())
    assert rows["semantic ID"] == "3 digits x 3, 16, 40 codes" and "entropy in bits (at best 1.58, 4, 5.32)" in rows


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "sids.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelFolderError, match="damaged or not a safetensors file"):
        SemanticIds.load(tmp_path / "sids.safetensors")
    with pytest.raises(ModelFolderError, match="is missing"):
        SemanticIds.load(tmp_path / "nowhere.safetensors")
