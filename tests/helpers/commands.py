"""The command line, called in this process."""

from __future__ import annotations

import sys

from diffgrm.apps.cli.main import main


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


def caller(monkeypatch, capsys):
    """Something that runs a command in this process: (exit code, output, errors), each on one line."""

    def call(*arguments):
        code, out, errors = called(monkeypatch, capsys, *arguments)
        return code, " ".join(out.split()), " ".join(errors.split())

    return call
