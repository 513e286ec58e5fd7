"""Commands on the command line: places are looked at before the work, and signals end it with a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

SLOW = ["recommender=diffgrm", "embedding.width=32", "tokenizer.n_digits=3", "tokenizer.codebook_size=16", "model.width=32"]
SLOW += ["model.heads=2", "training.epochs=5000", "training.patience=5000", "training.validation_users=20"]
SLOW += ["training.validation_decoding.beam=4", "decoding.beam=8"]


def diffgrm(*arguments, **more):
    command = [sys.executable, "-m", "diffgrm", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}  # for other current folders
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **more)


def started(*arguments):
    command = [sys.executable, "-m", "diffgrm", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_fit_that_is_ended_says_how_to_go_on(tmp_path, number, status):
    out = tmp_path / "model"
    process = started("fit", "--dataset", "toy", "--out", out, "--quiet", *SLOW)
    wait_for(lambda: (tmp_path / "model.run" / "best.ckpt").is_file() and (tmp_path / "model.run" / "last.ckpt").is_file())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert f"Ended by {signal.Signals(number).name}" in said and "--resume" in said and "Traceback" not in said
    assert not out.exists()
    if number == signal.SIGINT:
        return  # what it leaves is the same
    done = diffgrm("fit", "--dataset", "toy", "--out", out, "--quiet", *SLOW)
    assert done.returncode == 2 and "already holds a run; resume it (--resume; in Python: resume=True)" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_in_python_too(tmp_path, number, status):
    code = (
        "import os, signal, diffgrm\n"
        "from diffgrm.learning.loop import TrainingTask\n"
        f"TrainingTask.training_step = lambda self, batch, index: os.kill(os.getpid(), {int(number)})\n"
        "recipe = diffgrm.Recipe(recommender='sasrec', model={'width': 16, 'heads': 2})\n"
        "try:\n    diffgrm.SASRecRecommender(recipe).fit(diffgrm.toy_world(users=50).dataset, progress=False)\n"
        "except KeyboardInterrupt:\n"
        "    os._exit(130 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr


def test_another_long_command(tmp_path, saved):
    process = started("evaluate", saved, "--dataset", "toy", "--json", tmp_path / "out.json", "decoding.beam=65536")
    time.sleep(6)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "Ended by SIGTERM" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


PLACES = {
    "fit into the current folder": (["fit", "--dataset", "toy", "--out", "."], "is the current folder"),
    "fit into /": (["fit", "--dataset", "toy", "--out", "/"], "is the current folder or holds it"),
    "fit over a file": (["fit", "--dataset", "toy", "--out", "file"], "is a file"),
    "fit over a folder of others": (["fit", "--dataset", "toy", "--out", "folder"], "not a diffgrm model"),
    "fit under a file": (["fit", "--dataset", "toy", "--out", "file/model"], "no folder"),
    "run folder over a file": (["fit", "--dataset", "toy", "--out", "m", "--run-folder", "file"], "is a file"),
    "run folder in the model": (["fit", "--dataset", "toy", "--out", "m", "--run-folder", "m/run"], "lies in m"),
    "export into the current folder": (["export", "nowhere", "--out", "."], "is the current folder"),
    "export over a folder of others": (["export", "nowhere", "--out", "folder"], "not an ONNX export"),
    "recommend into nowhere": (["recommend", "nowhere", "--history", "x", "--out", "no/x.csv"], "there is no folder"),
    "recommend over a folder": (["recommend", "nowhere", "--history", "x", "--out", "folder.csv"], "it is a folder"),
    "evaluate into nowhere": (["evaluate", "nowhere", "--dataset", "toy", "--json", "no/x.json"], "there is no folder"),
    "ranks over a folder": (["evaluate", "nowhere", "--dataset", "toy", "--ranks", "folder.parquet"], "it is a folder"),
    "tokenize over a folder": (["tokenize", "--dataset", "toy", "--out", "folder.csv"], "it is a folder"),
    "its report into nowhere": (["tokenize", "--dataset", "toy", "--out", "x.csv", "--json", "no/x"], "there is no folder"),
    "bench over a file": (["bench", "suite.yaml", "--out", "file"], "is a file"),
    "report of a file": (["report", "file"], "holds no results.json"),
    "datasets over a file": (["datasets", "toy", "--out", "file"], "is a file"),
    "demo over a folder of others": (["demo", "--out", "folder"], "not a diffgrm model"),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, case):
    arguments, message = PLACES[case]
    (tmp_path / "file").write_text("precious")
    (tmp_path / "suite.yaml").write_text("datasets: [toy]\nreference: random\nruns: {random: {recommender: random}}\n")
    for name in ("folder", "folder.csv", "folder.parquet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("precious")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = diffgrm(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr and sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "thesis.tex").read_text() == "precious"
