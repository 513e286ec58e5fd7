"""How a server is started, and refused."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from diffgrm.apps.cli.main import app
from diffgrm.foundation.schema import DataError, DiffGRMError

run = pytest.importorskip("diffgrm.apps.serving.run")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beams": "3"}, "did you mean 'beam'"),
        ({"k": "0"}, "k: Input should be greater than or equal to 1"),
        ({"seconds": "soon"}, "seconds: Input should be a valid number"),
    ],
)
def test_bounds_that_cannot_be_used_are_told(values, message):
    with pytest.raises(DataError, match=message):
        run.read_limits(values, run.Limits)


def test_bounds_and_tokens_are_read(tmp_path):
    limits = run.read_limits({"k": "7", "seconds": "2.5"}, run.Limits)
    assert (limits.k, limits.seconds, limits.beam, limits.candidates) == (7, 2.5, 256, 256)
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert run.read_token(file, "ignored") == "0123456789abcdef"
    assert run.read_token(None, None) is None and run.read_token(None, "x" * 16) == "x" * 16
    with pytest.raises(DataError, match="16 at least"):
        run.read_token(None, "short")
    for odd in ("pässwort pässwort", "x" * 16 + "\n1", "x" * 16 + "\t", " " * 20, "0123456789abcdef "):
        with pytest.raises(DataError, match="letters, digits and signs of ASCII") as refused:
            run.read_token(None, odd)
        assert odd not in str(refused.value)
    file.write_text("ключ" * 8, encoding="utf-8")
    with pytest.raises(DataError, match="ASCII"):
        run.read_token(file, None)
    with pytest.raises(DataError, match="cannot be read"):
        run.read_token(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "beams=3"], "beams"),
        (["--limit", "k"], "--limit is written NAME=VALUE, found 'k'"),
        (["--limit", "k=5", "--limit", "k=7"], "--limit tells 'k' twice; tell it once"),
        (["decoding.beem=3"], "beem"),
        (["model.width=3"], "only decoding"),
        (["--interactions", "nowhere.parquet"], "nowhere.parquet"),
        (["--allow-host", "http://shop.example"], "without scheme and port"),
        (["--allow-host", "shop.example:8000"], "without scheme and port"),
        (
            ["--column", "a=b", "--time-format", "%d"],
            "--column and --time-format would do nothing, since no --interactions",
        ),
    ],
)
def test_the_command_refuses_what_cannot_be_served(saved, options, message):
    answer = CliRunner().invoke(app, ["serve", str(saved), *options])
    assert isinstance(answer.exception, DiffGRMError) and message in str(answer.exception)


def test_the_command_needs_a_model(tmp_path):
    answer = CliRunner().invoke(app, ["serve", str(tmp_path / "nowhere")])
    assert isinstance(answer.exception, DiffGRMError) and "no model folder" in str(answer.exception)


def test_a_server_answers_to_loopback_and_the_address_that_it_listens_at(caplog):
    assert run.answered_hosts("192.0.2.7", []) == ["localhost", "127.0.0.1", "::1", "192.0.2.7"]
    assert run.answered_hosts("127.0.0.1", ["shop.example"])[-1] == "shop.example" and not caplog.records
    for everywhere in ("0.0.0.0", "::"):
        assert run.answered_hosts(everywhere, []) == ["localhost", "127.0.0.1", "::1"]
    assert len(caplog.records) == 2 and "--allow-host" in caplog.text
    assert run.answered_hosts("0.0.0.0", ["*"])[-1] == "*" and len(caplog.records) == 2
