"""Speed and memory, side by side with another implementation, in one run.

    python benchmarks/run.py decode --data DATA/amazon-beauty --json docs/results/speed/decode.json

QUESTION is one of train, history, compile, decode, bf16, latency, evaluate, memory, tokenise, scaling, serve, onnx, or
``scale`` and what grows (``events``, ``catalogue``, ``vectors``, or the ``whole`` way; see ``scale_events.py`` and its
like). Each side lives in a process of its own with the same threads; they take turns, and the ratio is the median of the
ratios of neighbouring turns (the peer's time over ours). The peer runs in its own environment: ``make peers`` makes one,
``--peer-python`` names it; without it only we are measured.

Nothing measured here depends on the weights but how early the last digit of a constrained search stops asking. ``--model``
takes semantic IDs, sizes and (for us) weights from a fitted model; without it weights are random and the sizes the paper's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffgrm
from diffgrm import leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.recommenders.trained_network import NETWORK
from scale_catalogue import scale_catalogue
from scale_events import scale_events
from scale_vectors import scale_vectors
from scale_whole import RECIPES, scale_whole
from serve import serve
from turns import Worker, close, how_alike, keep, matrix_speed
from workload import dataset_of, real_workload, semantic_ids, synthetic_workload

HERE = Path(__file__).parent
PAPER = {"width": 256, "heads": 4, "encoder_layers": 1, "decoder_layers": 4, "feed_forward": 1024}  # Beauty
PEER = "cornac 3.0.1 DiffGRM"


class Bench:
    """Both workers, and how often a measurement is repeated."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, sizes: dict[str, int]) -> None:
        self.arguments, self.folder = arguments, folder
        self.sizes, self.fitted = sizes, {"weights": str(arguments.model / NETWORK)} if arguments.model else {}

    def workers(self, workload: Path) -> dict[str, Worker]:
        """Fresh processes: ours, and the peer where there is one."""
        workers = {"ours": self.our_worker(workload, **self.fitted)}
        if self.arguments.peer_python:
            python = self.arguments.peer_python
            workers["peer"] = Worker(python, "cornac_diffgrm.py", self.arguments.threads, workload, self.sizes)
        return workers

    def our_worker(self, workload: Path, **settings: Any) -> Worker:
        """A fresh process of ours."""
        return Worker(sys.executable, "ours.py", self.arguments.threads, workload, self.sizes | settings)

    def compare(
        self, workers: dict[str, Worker], unit: str, ours: dict[str, Any], peer: dict[str, Any], repeats: int | None = None
    ) -> dict[str, Any]:
        """Ask both in turn, after one turn to warm up; seconds per unit (a user, a target), and the ratio."""
        requests = {"ours": ours, "peer": peer}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for turn in range(1 + (repeats or self.arguments.repeats)):
            for name, worker in workers.items():
                answer = worker.ask(**requests[name])
                if "error" in answer:
                    return {"error": f"{name}: {answer['error']}"}
                if turn > 0:
                    seconds[name].append(answer["seconds"] / answer[unit])
        result: dict[str, Any] = {}
        for name, values in seconds.items():
            result[name] = {
                f"ms_per_{unit.removesuffix('s')}": round(1e3 * statistics.median(values), 3),
                f"{unit}_per_second": round(1 / statistics.median(values), 2),
                "spread": round((max(values) - min(values)) / statistics.median(values), 3),
            }
        if "peer" in seconds:
            ratios = [b / a for a, b in zip(seconds["ours"], seconds["peer"], strict=True)]
            result["ratio"] = round(statistics.median(ratios), 2)
        return result

    # ---- questions ----------------------------------------------------------------------------------------------

    def train(self, workload: Path) -> list[dict[str, Any]]:
        """Training targets a second at batch 256."""
        workers = self.workers(workload)
        cases = []
        for batch, steps, peer_steps in ((256, 8, 1),):
            ours = {"do": "train", "batch": batch, "steps": steps}
            found = self.compare(workers, "targets", ours, ours | {"steps": peer_steps})
            floor = self.floor(workload, "target", 8 * 256, lambda ours: ours.train(256, 8))
            cases.append({"batch": batch, **found, "floor": floor})
        return close(workers, cases)

    def history(self, workload: Path) -> list[dict[str, Any]]:
        """Our training with a causal encoder ("ours") against the bidirectional one ("peer"), on all targets of users."""
        pairs = (("ours", "causal"), ("peer", "bidirectional"))
        workers = {name: self.our_worker(workload, history=history) for name, history in pairs}
        request = {"do": "train_users", "batch": 256, "steps": 4}
        found = self.compare(workers, "targets", request, request)
        return close(workers, [{"batch": 256, "ours_is": "causal", "peer_is": "ours, bidirectional", **found}])

    def compile(self, workload: Path) -> list[dict[str, Any]]:
        """Our compiled network ("ours") against the eager one ("peer"); the time to compile is the first turn's."""
        cases = []
        for request, unit in (
            ({"do": "decode", "batch": 32, "beam": 128, "constrained": True}, "users"),
            ({"do": "decode", "batch": 1, "beam": 32, "constrained": True}, "users"),
            ({"do": "train", "batch": 256, "steps": 4}, "targets"),
        ):
            workers = {name: self.our_worker(workload, compiled=name == "ours", **self.fitted) for name in ("ours", "peer")}
            seconds = {name: worker.ask(**request)["seconds"] for name, worker in workers.items()}
            case = {**request, "ours_is": "compiled", "peer_is": "ours, eager", "first_turn_seconds": seconds}
            cases += close(workers, [{**case, **self.compare(workers, unit, request, request)}])
            print(json.dumps(cases[-1]), flush=True)
        return cases

    def decode(self, workload: Path) -> list[dict[str, Any]]:
        """Users a second, batch 1 and 32, several beams, with and without the catalogue's constraint."""
        workers = self.workers(workload)
        cases = []
        for constrained in (False, True):
            for batch in (1, 32):
                for beam in self.arguments.beams:
                    request = {"do": "decode", "batch": batch, "beam": beam, "constrained": constrained}
                    found = self.compare(workers, "users", request, request, 3 if batch == 32 else None)
                    case = {"batch": batch, "beam": beam, "constrained": constrained, **found}
                    case["floor"] = self.floor(
                        workload, "user", batch, lambda ours, b=batch, w=beam, c=constrained: ours.decode(b, w, c)
                    )
                    print(json.dumps(case), flush=True)
                    cases.append(case)
        for batch, beam, peer_beam in ((1, 32, 32), (1, 128, 128), (32, 32, 32), (32, 32, 128), (32, 128, 128)):
            request = {"do": "decode", "batch": batch, "beam": beam, "constrained": True}
            peer = request | {"beam": peer_beam}
            found = self.compare(workers, "users", request | {"decoder": "catalogue_beam"}, peer, 3)
            cases.append({"batch": batch, "beam": beam, "peer_beam": peer_beam, "decoder": "catalogue_beam", **found})
            print(json.dumps(cases[-1]), flush=True)
        return close(workers, cases)

    def bf16(self, workload: Path) -> list[dict[str, Any]]:
        """Our network in bf16 ("ours") against 32 bits ("peer")."""
        workers = {name: self.our_worker(workload, bf16=name == "ours", **self.fitted) for name in ("ours", "peer")}
        cases = []
        for constrained in (False, True):
            for batch, beam in ((1, 32), (32, 128)):
                request = {"do": "decode", "batch": batch, "beam": beam, "constrained": constrained}
                found = self.compare(workers, "users", request, request)
                case = {"batch": batch, "beam": beam, "constrained": constrained}
                cases.append({**case, "ours_is": "bf16", "peer_is": "ours, 32 bits", **found})
        return close(workers, cases)

    def latency(self, workload: Path) -> list[dict[str, Any]]:
        """Milliseconds for one user, warm, constrained, a different user each time."""
        workers = self.workers(workload)
        cases = []
        for decoder, beam in itertools.product(("any_order_beam", "catalogue_beam"), (16, 32, 128)):
            worker, values = workers["ours"], []
            for user in range(10 * self.arguments.repeats + 5):
                answer = worker.ask(do="decode", batch=1, beam=beam, constrained=True, first=user, decoder=decoder)
                values.append(1e3 * answer["seconds"])
            values = values[5:]
            p50, p95 = np.percentile(values, [50, 95])
            found = {"median_ms": round(p50, 1), "p95_ms": round(p95, 1)}
            cases.append({"decoder": decoder, "beam": beam, "ours": found})
        return close(workers, cases)

    def evaluate(self, workload: Path) -> list[dict[str, Any]]:
        """Ranking test users, the peer by one beam 128 search each; a sample stands for all of them."""
        workers = self.workers(workload)
        cases = []
        for decoder, beam in (("any_order_beam", 128), ("catalogue_beam", 128), ("catalogue_beam", 32)):
            ours = {"do": "evaluate", "users": 128, "beam": beam, "decoder": decoder}
            found = self.compare(workers, "users", ours, {"do": "evaluate", "users": 8, "beam": 128}, 3)
            cases.append({"decoder": decoder, "beam": beam, "peer_beam": 128, **found})
        return close(workers, cases)

    def memory(self, workload: Path) -> list[dict[str, Any]]:
        """Peak memory that decoding adds to a process that holds the model; a fresh process for each case."""
        cases = []
        for batch, beam in ((32, 128), (32, 256)):
            case: dict[str, Any] = {"batch": batch, "beam": beam}
            for name, worker in self.workers(workload).items():
                worker.ask(do="decode", batch=1, beam=2, constrained=False)
                answer = worker.ask(do="decode", batch=batch, beam=beam, constrained=False)
                case[name] = {key: answer[key] for key in ("peak_mb", "error") if key in answer}
                worker.close()
            if "peak_mb" in case.get("peer", {}):
                case["ratio"] = round(case["peer"]["peak_mb"] / case["ours"]["peak_mb"], 2)
            cases.append(case)
        return cases

    def tokenise(self, workload: Path) -> list[dict[str, Any]]:
        """Seconds to fit the tokenizer and give every item its own SID."""
        del workload
        dataset = dataset_of(self.arguments.data)
        in_training = leave_one_out(dataset).item_counts > 0
        semantic_ids(dataset, in_training, 0)  # fills the cache of text embeddings
        values = []
        for _ in range(3):
            started = time.perf_counter()
            semantic_ids(dataset, in_training, 0)
            values.append(time.perf_counter() - started)
        return [{"items": len(dataset.items), "ours": {"seconds": round(statistics.median(values), 2)}}]

    def onnx(self, workload: Path) -> list[dict[str, Any]]:
        """An export through ONNX Runtime ("ours") beside PyTorch ("peer"): lists of all users, size, one user's time."""
        beam, threads, at_once = 32, self.arguments.threads, 256
        folders = {"ours": self.folder / "export", "peer": self.arguments.model}
        diffgrm.export_onnx(diffgrm.load(folders["peer"]), folders["ours"])
        workers = {
            name: Worker(
                sys.executable,
                "door.py",
                threads,
                workload,
                {"folder": str(folder), "beam": beam, "threads": threads, "onnx": name == "ours"},
            )
            for name, folder in folders.items()
        }
        with np.load(workload) as data:
            users = len(data["history_offsets"]) - 1
        agreement = {"equal": 0, "equal_but_for_ties": 0, "different": 0}
        largest = 0.0
        for first in range(0, users, at_once):
            answers = [w.ask(do="recommend", first=first, users=at_once, lists=True) for w in workers.values()]
            for ours, peer in zip(*(list(zip(a["items"], a["scores"], strict=True)) for a in answers), strict=True):
                agreement[how_alike(ours, peer)] += 1
                if len(ours[1]) == len(peer[1]):
                    largest = max(largest, float(np.abs(np.subtract(ours[1], peer[1])).max(initial=0)))
            print(json.dumps({"users": min(first + at_once, users), **agreement}), flush=True)
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for turn in range(min(users, 5 + 20 * self.arguments.repeats)):
            for name in workers if turn % 2 else reversed(workers):  # neither always goes first
                seconds[name].append(workers[name].ask(do="recommend", first=turn, users=1)["seconds"])
        case: dict[str, Any] = {
            "ours_is": "ONNX Runtime",
            "peer_is": "ours, PyTorch",
            "beam": beam,
            "users": users,
            "k": 10,
        }
        case |= {"lists": agreement, "largest_difference_of_scores": float(f"{largest:.2g}")}
        for name, values in seconds.items():
            p25, p50, p75, p95 = 1e3 * np.percentile(values[5:], [25, 50, 75, 95])
            times = {"median_ms": p50, "p25_ms": p25, "p75_ms": p75, "p95_ms": p95}
            loaded = workers[name].loaded
            folder = {"folder_mb": round(loaded["bytes"] / 2**20, 1), "loaded_mb": loaded["loaded_mb"]}
            case[name] = {key: round(value, 1) for key, value in times.items()} | folder
        ratios = [b / a for a, b in zip(seconds["ours"][5:], seconds["peer"][5:], strict=True)]
        case["ratio"] = round(statistics.median(ratios), 2)
        return close(workers, [case])

    def scaling(self, workload: Path) -> list[dict[str, Any]]:
        """Our decode time against digits, beam, history length and catalogue size, on synthetic SIDs."""
        del workload
        base = {"items": 10_000, "n_digits": 4, "codebook_size": 256, "history": 8, "beam": 64}
        digits = [4, 8, 16, 32, 64]
        ways: dict[str, dict[str, Any]] = {
            "4 steps, finish=items": {"steps": 4, "finish": "items"},
            "catalogue_beam": {"decoder": "catalogue_beam"},
            "one pass": {"decoder": "one_pass"},
        }
        changes: dict[str, list[int]] = {
            "n_digits": digits[:3],
            **{f"n_digits, {way}": digits for way in ways},
            "beam": [16, 32, 64, 128, 256, 512],
            "history": [2, 8, 16, 32, 50],
            "items": [10_000, 100_000, 1_000_000, 10_000_000],
        }
        cases = []
        for factor, values in changes.items():
            name, _, way = factor.partition(", ")
            for value in values:
                settings = base | {name: value}
                beam = settings.pop("beam")
                path = self.folder / "synthetic.npz"
                synthetic_workload(path, **settings, users=4, seed=0)
                worker = self.our_worker(path)
                request = {"do": "decode", "batch": 4, "beam": beam, "constrained": True}
                request |= ways.get(way, {})
                first = worker.ask(**request)  # makes the catalogue's tables
                found = self.compare({"ours": worker}, "users", request, {}, 3)
                worker.close()
                cases.append({"factor": factor, "value": value, "first_decode_mb": first.get("peak_mb"), **found})
                print(json.dumps(cases[-1]), flush=True)
            points = [(c["value"], c["ours"]["ms_per_user"]) for c in cases if c["factor"] == factor and "ours" in c]
            x, y = np.log(points).T
            fitted = {"fitted_exponent": round(float(np.polyfit(x, y, 1)[0]), 2)}
            cases.append({"factor": factor, **fitted, "times_first_to_last": round(float(np.exp(y[-1] - y[0])), 2)})
        return cases

    def floor(self, workload: Path, unit: str, count: int, work: Callable[[Any], Any]) -> dict[str, Any]:
        """Operations of our work over what this machine's matrix product reaches: the least time it can take.

        Args:
            count: units (targets, users) that the work serves.
        """
        sys.path.insert(0, str(HERE / "workers"))
        from ours import Ours
        from torch.utils.flop_counter import FlopCounterMode

        torch.set_num_threads(self.arguments.threads)
        ours = Ours()
        ours.load(str(workload), **self.sizes, **self.fitted)
        aten = torch.ops.aten
        in_place = {
            aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1],
            aten.baddbmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2],
        }
        with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            work(ours)
        per_unit = counter.get_total_flops() / count
        speed = matrix_speed()
        return {
            f"mflop_per_{unit}": round(per_unit / 1e6, 1),
            "machine_gflop_per_second": round(speed / 1e9, 1),
            f"least_ms_per_{unit}": round(1e3 * per_unit / speed, 3),
        }


QUESTIONS = ("train", "history", "compile", "decode", "bf16", "latency", "evaluate", "memory")
QUESTIONS += ("tokenise", "scaling", "serve", "onnx", "scale")
GROWS = {"events": scale_events, "catalogue": scale_catalogue, "vectors": scale_vectors, "whole": scale_whole}


def compared(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Everything but serve: what is measured, and the cases."""
    sizes, sids = PAPER, None
    if arguments.model:
        fitted = diffgrm.load(arguments.model)
        sizes, sids = {name: fitted.recipe.model.options[name] for name in PAPER}, fitted.semantic_ids
    path, onnx = folder / "workload.npz", arguments.question == "onnx"
    users = arguments.users or (sys.maxsize if onnx else 512)
    workload = real_workload(path, arguments.data, examples=2048, users=users, seed=0, sids=sids)
    facts = {
        "peer": PEER if arguments.peer_python and not onnx else None,
        "sizes": sizes,
        "workload": workload,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
    }
    return facts, getattr(Bench(arguments, folder, sizes), arguments.question)(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("grows", nargs="?", choices=GROWS, help="what grows, of scale")
    parser.add_argument("--json", type=Path, help="file of the result; scale goes on from what it holds")
    parser.add_argument("--data", type=Path, help="dataset folder; without it the toy storefront")
    parser.add_argument("--model", type=Path, help="fitted DiffGRM of that dataset: semantic IDs, sizes and weights")
    default = HERE.parent / ".venv-cornac" / "bin" / "python"
    parser.add_argument("--peer-python", default=str(default) if default.exists() else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="of each case of serve")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32], help="of closed loops of serve")
    parser.add_argument("--rates", type=float, nargs="*", default=[20.0], help="requests a second of open loops of serve")
    parser.add_argument("--beams", type=int, nargs="*", default=[32, 128, 256, 512])
    parser.add_argument("--users", type=int, help="test users; 512, or all of them for onnx")
    parser.add_argument(
        "--items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="of scale catalogue, vectors and whole"
    )
    parser.add_argument("--steps", type=int, default=300, help="of training, of scale whole")
    parser.add_argument("--changes", nargs="*", default=[], help="of the recipes of scale whole, such as seed=1")
    parser.add_argument("--models", nargs="*", choices=RECIPES, default=list(RECIPES), help="of scale whole")
    parser.add_argument("--cap", type=float, default=16, help="GiB that a process of scale vectors and whole may hold")
    parser.add_argument("--work", type=Path, help="folder where scale keeps what stages make; a temporary one")
    parser.add_argument("--events", type=int, nargs="*", default=[1_000_000, 10_000_000], help="of scale events")
    arguments = parser.parse_args()
    if arguments.question == "onnx" and not arguments.model:
        parser.error("onnx needs --model")
    if (arguments.question == "scale") != (arguments.grows is not None):
        parser.error(f"scale, and nothing else, needs what grows: {', '.join(GROWS)}")
    given = [f"--data DATA/{arguments.data.name}"] if arguments.data else []
    given += ["--model MODEL"] if arguments.model else []
    for name in (
        "repeats",
        "seconds",
        "clients",
        "rates",
        "beams",
        "users",
        "events",
        "items",
        "steps",
        "models",
        "changes",
        "cap",
    ):
        value = getattr(arguments, name)
        if value != parser.get_default(name):
            given.append(f"--{name} " + " ".join(map(str, value if isinstance(value, list) else [value])))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.question == "serve":  # as the command serves: any recommender, its own threads, no peer
            facts, cases = {}, serve(arguments, Path(folder))
        elif arguments.question == "scale":
            facts, cases = GROWS[arguments.grows](arguments, Path(folder))
        else:
            facts, cases = compared(arguments, Path(folder))
    content = {
        "question": arguments.question,
        "command": " ".join(["python benchmarks/run.py", arguments.question, *filter(None, [arguments.grows]), *given]),
        **facts,
        "weights": "fitted" if arguments.model else "random",
        "machine": machine(),
        "cases": cases,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(content, indent=1))
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
