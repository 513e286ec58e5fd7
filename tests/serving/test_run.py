"""How a server is started, and refused."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from diffgrm.apps.cli.main import app
from diffgrm.foundation.schema import DataError, DiffGRMError

run = pytest.importorskip("diffgrm.apps.serving.run")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["k"], "NAME=VALUE"),
        (["beams=3"], "did you mean 'beam'"),
        (["k=0"], "k: Input should be greater than or equal to 1"),
        (["seconds=soon"], "seconds: Input should be a valid number"),
    ],
)
def test_bounds_that_cannot_be_used_are_told(pairs, message):
    with pytest.raises(DataError, match=message):
        run.read_limits(pairs)


def test_bounds_and_tokens_are_read(tmp_path):
    limits = run.read_limits(["k=7", "seconds=2.5"])
    assert (limits.k, limits.seconds, limits.beam, limits.candidates) == (7, 2.5, 256, 256)
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert run.read_token(file, "ignored") == "0123456789abcdef"
    assert run.read_token(None, None) is None and run.read_token(None, "x" * 16) == "x" * 16
    with pytest.raises(DataError, match="16 at least"):
        run.read_token(None, "short")
    with pytest.raises(DataError, match="cannot be read"):
        run.read_token(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "beams=3"], "beams"),
        (["decoding.beem=3"], "beem"),
        (["model.width=3"], "only decoding"),
        (["--interactions", "nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_the_command_refuses_what_cannot_be_served(saved, options, message):
    answer = CliRunner().invoke(app, ["serve", str(saved), *options])
    assert isinstance(answer.exception, DiffGRMError) and message in str(answer.exception)


def test_the_command_needs_a_model(tmp_path):
    answer = CliRunner().invoke(app, ["serve", str(tmp_path / "nowhere")])
    assert isinstance(answer.exception, DiffGRMError) and "no model folder" in str(answer.exception)
