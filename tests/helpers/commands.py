"""The command line, called in this process."""

from __future__ import annotations

import sys

from diffgrm.apps.cli.main import main
from diffgrm.learning.loop import TrainingTask


def called(monkeypatch, capsys, *arguments):
    """Run a command: (exit code, output, errors)."""
    monkeypatch.setattr(sys, "argv", ["diffgrm", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as exit_:
        code = exit_.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


def save_tables(dataset, folder):
    """A dataset's two tables in a folder, as the arguments of commands that read them."""
    dataset.event_table().write_parquet(folder / "interactions.parquet")
    dataset.item_table.write_parquet(folder / "items.parquet")
    return ["--interactions", folder / "interactions.parquet", "--items", folder / "items.parquet"]


def interrupted_update(recommender, dataset, folder, monkeypatch, capsys):
    """Interrupt ``diffgrm update`` of a saved model while it learns, and check that no file of it changed; the model."""
    model, tables = recommender.save(folder / "model"), save_tables(dataset, folder)
    files = {path.name: path.read_bytes() for path in model.iterdir()}

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingTask, "on_train_epoch_end", interrupted)
    code, _, _ = called(monkeypatch, capsys, "update", model, *tables[:2], "--out", model, "--quiet", "training.epochs=1")
    assert code and {path.name: path.read_bytes() for path in model.iterdir()} == files
    return model


def caller(monkeypatch, capsys):
    """Something that runs a command in this process: (exit code, output, errors), each on one line."""

    def call(*arguments):
        code, out, errors = called(monkeypatch, capsys, *arguments)
        return code, " ".join(out.split()), " ".join(errors.split())

    return call
