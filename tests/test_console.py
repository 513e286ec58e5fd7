"""What people see in the terminal: names and texts as they are, whatever they hold and however narrow the terminal is."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import diffgrm
from diffgrm.apps import console
from diffgrm.apps.bench.tables import markdown as suite_markdown
from diffgrm.apps.cli.main import app, main
from diffgrm.apps.reporting import figures, page
from diffgrm.foundation import terminal
from diffgrm.foundation.recipe import SettingRow
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.terminal import Terminal
from diffgrm.recommenders.card import model_card
from helpers.commands import called

SOURCE = Path(diffgrm.__file__).parent
ITEMS = pl.DataFrame({"item_id": ["[red]a[/]", "b", "c"], "text": ["[bold]x [/] y [1]", None, "long " * 40]})
LIST = pl.DataFrame({"user_id": ["[u]"] * 3, "item_id": ITEMS["item_id"], "score": [1.0, 2.0, 3.0], "rank": [1, 2, 3]})
EVIL = "[/red] :smile: \x1b]0;x\a \r \x9b2J \u202e [bold]"  # markup, an emoji code, and what drives terminals
SHOWN = r"[/red] :smile: \x1b]0;x\x07 \r \x9b2J \u202e [bold]"


@pytest.fixture(params=[60, 80, 200])
def shown(request, monkeypatch):
    """What the terminal holds, of some width."""
    recording = Terminal(width=request.param, record=True)
    monkeypatch.setattr(console, "console", recording)
    return recording.export_text


@pytest.fixture
def wide(monkeypatch):
    """What a terminal holds that breaks no line; errors go to it too."""
    recording = Terminal(width=1000, record=True)
    monkeypatch.setattr(console, "console", recording)
    for name in ("console", "errors"):
        monkeypatch.setattr(terminal, name, recording)
    return recording.export_text


def test_lists_are_shown_as_they_are(shown):
    console.show_recommendations(LIST, ITEMS)
    text = shown()
    assert "[u]" in text and "[red]a[/]" in text and "[bold]x" in text and "3.000" in text
    assert len(text.splitlines()) == 8  # each item on one line


def test_so_are_explanations(shown):
    row = {"rank": 1, "item_id": "[red]a[/]", "step": 1, "digit": 0, "code": 3, "confidence": 0.5, "rival": 2}
    console.show_explanation(pl.DataFrame([row | {"rival_confidence": 0.2, "items_left": 7}]), ITEMS)
    text = shown()
    assert "[red]a[/]" in text and "[bold]x [/] y [1]" in text.replace("\n", " ") and "50.0%" in text


def test_no_name_is_markup_or_drives_the_terminal(wide):
    metrics = {"recall@10": 0.5, "ndcg@10": 0.25, "ndcg@10_unfiltered": 0.125}
    console.show_pairs(EVIL, [(EVIL, EVIL)])
    console.show_names([(EVIL, EVIL)])
    console.show_settings(EVIL, [SettingRow(EVIL, EVIL, 3, EVIL)])
    console.show_metrics(EVIL, {EVIL: metrics, "other": metrics})
    console.show_runs([{"dataset": EVIL, "run": EVIL, "metrics": metrics, "ms_per_list": 2.0}])
    table = pl.DataFrame({"user_id": [EVIL], "item_id": [EVIL], "score": [1.0], "rank": [1]})
    console.show_recommendations(table, pl.DataFrame({"item_id": [EVIL], "text": [f"two\nlines {EVIL}"]}))
    terminal.say(f"Saved to {EVIL}")
    terminal.complain("DataError", f"no file {EVIL}\n  - {EVIL}")
    with terminal.progress_bar(EVIL, 1) as progress:
        progress(1)
    text = wide()
    assert text.count(SHOWN) == 2 + 1 + 2 + 3 + 2 + 2 + 3 + 1 + 2 + 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text) and r"two\nlines" in text


def test_narrow_settings_are_shown_as_they_are(monkeypatch):
    recording = Terminal(width=100, record=True)
    monkeypatch.setattr(console, "console", recording)
    console.show_settings("[t]", [SettingRow("[a]", "[b]", ["c"], "[d]")])
    assert recording.export_text().split() == ["[t]", "[a]", "[b],", "[c]", "[d]"]


@pytest.mark.parametrize(
    "titles",
    [[7, None, 12], [["a", "b"], [], None], [1.5, None, 2.0], [{"a": 1}, {"a": None}, {"a": 3}], [True, False, None]],
)
def test_titles_of_any_kind_are_printed(wide, titles):
    console.show_recommendations(LIST, ITEMS.with_columns(title=pl.Series(titles)))
    row = {"rank": 1, "item_id": "b", "step": 1, "digit": 0, "code": 3, "confidence": 0.5, "rival": 2}
    console.show_explanation(pl.DataFrame([row | {"rival_confidence": 0.2, "items_left": 7}]), ITEMS.with_columns(title=2))
    text = wide()
    assert "1. b  2" in text and all(str(title) in text for title in titles if title is not None)
    assert "None" not in text.replace("{'a': None}", "")


def test_logged_messages_are_shown_as_they_are(wide):
    before = logging.getLogger().handlers
    try:
        terminal.log_to_terminal(verbose=False)
        logging.getLogger("diffgrm.data").warning("unknown: %s", EVIL)
        logging.getLogger("diffgrm.data").debug("not told")
    finally:
        logging.getLogger().handlers = before
    assert f"unknown: {SHOWN}" in wide() and "not told" not in wide()


@pytest.mark.parametrize(("command", "times"), [("serve", 3), ("fit", 1)])
def test_a_command_warns_of_the_same_once_and_a_server_again_and_again(wide, monkeypatch, command, times):
    before = logging.getLogger().handlers

    def warns(*_, **__):
        for number in (1, 2, 1, 1):
            logging.getLogger("diffgrm.data").warning("%d items are like no other", number)

    monkeypatch.setattr("diffgrm.apps.serving.run.run", warns)
    monkeypatch.setattr("diffgrm.apps.cli.main.recipe_of", warns)
    try:
        CliRunner().invoke(app, [command, "m"] if command == "serve" else [command, "--out", "m"])
    finally:
        logging.getLogger().handlers = before
    text = wide()
    assert text.count("1 items are like no other") == times and text.count("2 items are like no other") == 1


def test_every_console_and_bar_is_made_in_one_place():
    """Calls by any name would do as well; these are what rich is called."""
    made = {"Console", "Progress", "Text", "RichHandler", "from_markup", "print_json", "track", "rprint"}
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).as_posix() == "foundation/terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func).split(".")[-1] not in made, f"{path}: {ast.unparse(node)}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                marked = re.search(r"\[/?(bold|italic|red|green|dim|yellow|blue)\b[^\]]*\]|\[/\]", node.value)
                assert not marked, f"{path}: markup in {node.value!r}"


# ---- through the command line ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A small fitted model whose names would all be markup, in a folder that would be too."""
    home = tmp_path_factory.mktemp("[red] :smile:")
    users = [f"[/u{n % 9}] \x1b[31m" for n in range(60)]
    items = [f"[bold]Å {n % 7}\a" for n in range(60)]
    events = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": range(60)})
    events.write_parquet(home / "events.parquet")
    table = pl.DataFrame({"item_id": sorted(set(items)), "text": "[/] naïve ✓ 日本"}).with_columns(title=pl.col("text"))
    table.write_parquet(home / "items.parquet")
    return home


@pytest.fixture
def run(monkeypatch, capsys, odd):
    for made in (terminal.console, terminal.errors):
        monkeypatch.setattr(made, "width", 200)
    return partial(called, monkeypatch, capsys)


def test_commands_print_names_as_they_are(run, odd):
    tables = ["--interactions", odd / "events.parquet", "--items", odd / "items.parquet"]
    model = odd / "m [/red]"
    code, out, err = run("fit", *tables, "--out", model, "--quiet", "recommender=popularity")
    assert code == 0 and f"Saved to {model}" in out and f"InteractionDataset({odd.name}: 9 users" in out, err
    code, out, err = run("recommend", model, *tables[:2], "--k", 5, "--include-seen", "--quiet")
    assert code == 0 and r"User [/u0] \x1b[31m" in out, err
    code, out, _ = run("recommend", model, "--k", 5, "--history", "[bold]Å 1\a", "--include-seen")
    assert code == 0 and r"[bold]Å 1\x07" in out and "[/] naïve ✓ 日本" in out and "\a" not in out
    code, out, _ = run("evaluate", model, *tables, "--quiet")
    assert code == 0 and f"users of {odd.name}" in out
    code, out, _ = run("recommend", model, *tables[:2], "--k", 5, "--quiet", "--out", odd / "[i].csv")
    assert code == 0 and out.endswith(f"written to {odd / '[i].csv'}\n")
    code, _, err = run("recommend", model, "--k", 5, "--history", EVIL)
    assert code == 2 and SHOWN in err
    code, _, err = run("recommend", model, "--k", 5, "--history", "a\udcff")
    assert code == 2 and r"the argument 'a\udcff' is not UTF-8" in err
    code, _, err = run("evaluate", model, *tables, "--on", "[/red] :smile:")
    assert code == 2 and "'[/red] :smile:'" in err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_will_do(odd, monkeypatch, encoding):
    tables = ["--interactions", odd / "events.parquet", "--items", odd / "items.parquet"]

    def ask(*arguments):
        monkeypatch.setattr(sys, "argv", ["diffgrm", *map(str, arguments)])
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        for stream in streams:
            stream.flush()
        return end.value.code, *(stream.buffer.getvalue().decode(encoding) for stream in streams)

    code, out, err = ask("fit", *tables, "--out", odd / "m é", "recommender=popularity")
    assert code == 0 and ("m é" if encoding != "ascii" else "m ?") in out, err
    code, out, _ = ask("recommend", odd / "m é", "--k", 5, "--history", "[bold]Å 1\a", "--include-seen")
    assert code == 0 and {"ascii": "na?ve ? ??", "cp1252": "naïve ? ??", "utf-8": "naïve ✓ 日本"}[encoding] in out
    code, _, err = ask("recommend", odd / "m é", "--k", 5, "--history", "日本")
    assert code == 2 and ("日本" if encoding == "utf-8" else "??") in err
    for arguments in (["--help"], ["fit", "--help"], ["explain"], ["evaluate", "m", "--on", "日本"]):
        assert ask(*arguments)[0] in (0, 2)


def test_a_fit_shows_its_progress_where_there_is_ascii_only(odd, tmp_path):
    tables = ["--interactions", odd / "events.parquet", "--items", odd / "items.parquet"]
    settings = ["recommender=sasrec", "model.width=8", "training.epochs=1"]  # of a catalogue of fewer than ten items
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "LC_ALL": "C", "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", "diffgrm", "fit", *map(str, tables), "--out", str(tmp_path / "m"), *settings]
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert done.returncode == 0 and b"Saved to" in done.stdout and b"Epoch" in done.stdout, done.stderr


# ---- in files that are read elsewhere --------------------------------------------------------------------------------

FACTS = {"users": 1, "items": 1, "events": 2, "training_events": 1, "split": "leave_one_out", "fitted_at": "now"}
FACTS |= {"fit_seconds": 1.0, "machine": "m", "versions": {"diffgrm": "1"}}


def test_a_model_card_shows_names_as_they_are():
    recipe = diffgrm.Recipe(embedding={"columns": ["x\n```\n<script>"]})
    card = model_card("Hybrid", FACTS | {"dataset": "<b>\n# [a](b) `c` \x1b"}, recipe, "i\n```\n<script>")
    assert "# Hybrid on \\<b\\>\\\\n\\# \\[a\\](b) \\`c\\` \\\\x1b\n" in card and "\x1b" not in card
    assert "recommend([['i\\n```\\n<script>']], k=10)" not in card and "'i\\n```\\n<script>'" in card
    before, _, settings = card.partition("````yaml\n")
    assert "\n````\n" in settings and before.count("````") == 2


def test_tables_of_a_suite_show_names_as_they_are():
    row = {"dataset": "a\n|b", "run": "[x](y) | z", "users": 3, "seeds": [0], "metrics": {"ndcg@10": 0.5}, "peer": False}
    row |= {"standard_deviation": {"ndcg@10": None}, "parameters": None, "fit_seconds": None, "ms_per_list": None}
    text = suite_markdown([row], "`r`")
    assert "## a\\\\n\\|b\n" in text and "| \\[x\\](y) \\| z | 1 |" in text and "to \\`r\\`." in text


def test_a_message_keeps_its_path_in_one_line(capsys):
    path = "/".join(["folder"] * 40)
    terminal.say(f"Saved to {path}")
    assert capsys.readouterr().out == f"Saved to {path}\n"
    terminal.complain("DataError", str(DataError(path)))
    assert capsys.readouterr().err == f"Error: DataError\n{path}\n"


def test_a_page_shows_names_as_they_are():
    pytest.importorskip("matplotlib")
    rows = [{"run": name, "family": name, "ms_per_list": 1.0, "metrics": {"ndcg@10": 0.5}} for name in ("$x^{ $", "<b>&")]
    drawn = figures.quality_against_time(rows)  # no name is a formula
    assert "<b>" not in drawn and "<!-- $x^{ $ -->" in drawn
    assert page.escaped('<a b="c">\x1b&') == "&lt;a b=&quot;c&quot;&gt;\\x1b&amp;"
