"""The command line: diffgrm bench, report, demo, export: what is written of recommenders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.shared import Model, Overrides, Quiet, TrustCode, of_lists
from diffgrm.foundation.schema import DiffGRMError, bullet_list


def bench(
    suite: Annotated[Path, typer.Argument(help="Suite YAML: datasets, runs and seeds (see suites/).")],
    out: Annotated[Path, typer.Option(help="Folder of fitted models, results and tables; a killed suite goes on there.")],
    quiet: Quiet = False,
) -> None:
    """Run a suite of recommenders on equal terms and write its tables: results.json, results.csv, results.md."""
    from diffgrm.apps.bench.runner import Runner
    from diffgrm.apps.bench.suite import Suite
    from diffgrm.apps.bench.tables import check_place, write_tables
    from diffgrm.apps.console import show_runs
    from diffgrm.apps.machine import machine
    from diffgrm.foundation.terminal import say

    wanted = Suite.from_yaml(suite)
    check_place(out)
    out.mkdir(parents=True, exist_ok=True)
    with ends.hint(lambda: f"What is done so far stands in {out}; the same command goes on there."):
        runner = Runner(wanted, out, say, progress=not quiet)
        failed = runner.run()
    if runner.done:
        show_runs(write_tables(runner, machine()))
        say(f"Tables: {out}/results.md, results.csv, results.json. A page with figures: diffgrm report {out}")
    if failed:
        problems = bullet_list(f"{what}: {why}" for what, why in failed.items())
        raise DiffGRMError(f"some runs failed; mend them and run the suite again:\n{problems}")


def report(out: Annotated[Path, typer.Argument(help="Folder of a suite that has run.")]) -> None:
    """Write OUT/report.html: one page with the tables and figures of a suite."""
    from diffgrm.apps.reporting.page import write_report
    from diffgrm.foundation.terminal import say

    say(f"Written: {write_report(out)}")


def demo(
    out: Annotated[Path | None, typer.Option(help="Keep the model in this folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fit on a generated storefront and show tokeniser report, metrics and recommendations. Needs no network."""
    from diffgrm.apps.demo import run
    from diffgrm.foundation import model_folder

    if out is not None:
        model_folder.check_target(out)
    run(out, quiet)


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the export; a new or empty one, or an older export.")],
    overrides: Overrides = None,
    to: Annotated[Literal["onnx"], typer.Option("--format", help="What to write.")] = "onnx",
    trust_code: TrustCode = False,
) -> None:
    """Write a model for use without PyTorch: diffgrm.load_onnx(OUT) recommends with ONNX Runtime."""
    from diffgrm.foundation import model_folder
    from diffgrm.foundation.terminal import say
    from diffgrm.recommenders import load
    from diffgrm.runtime_onnx.export import export_onnx

    model_folder.check_target(out, model_folder.EXPORT)
    folder = export_onnx(load(model, trust_code=trust_code).override(of_lists(overrides)), out)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    say(f"Written to {folder} as {to}, {size:.1f} MiB. In Python: diffgrm.load_onnx({str(folder)!r})")
