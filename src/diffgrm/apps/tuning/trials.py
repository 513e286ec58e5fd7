"""The trials of a search, kept in Optuna's storage, one file in the folder of the search."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diffgrm.apps.choosing import Options, Range
from diffgrm.apps.tuning.plan import Plan
from diffgrm.foundation.schema import DataError, MissingExtraError

if TYPE_CHECKING:
    import optuna

STORE = "trials.log"  # Optuna's journal, a line an event
ENDED_BY_FORCE = "ended_by_force"  # marks trials that were under way when the search was killed
State = Literal["done", "pruned", "failed"]
STATES: dict[State, str] = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}  # in Optuna's words


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        settings: what was chosen, by dotted setting.
        score: on validation; of one that was given up, its last; None if it failed.
        curve: epoch and score of every validation of a network.
        facts: metrics on validation, epochs, seconds, or why it failed.
    """

    number: int
    state: State
    settings: dict[str, Any]
    score: float | None
    curve: list[tuple[int, float]]
    facts: dict[str, Any]


class Trials:
    """Proposes settings and remembers what came of them.

    A proposal follows from the plan and the trials that have ended, and not from how often the search was killed: the
    sampler is seeded anew for every trial, by how many have ended.

    Raises:
        MissingExtraError: Optuna is not installed. DataError: their file is damaged.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        optuna = optuna_or_hint()
        _drop_half_line(folder / STORE)
        _check_lines(folder / STORE)
        from optuna.storages.journal import JournalFileBackend

        self._optuna, self._plan, self._verbosity = optuna, plan, optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # what is done is told by whoever searches
        lock: Any = _Locked()
        self._storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / STORE), lock_obj=lock))
        self._study = optuna.create_study(
            storage=self._storage, study_name="search", direction="maximize", load_if_exists=True, pruner=self._pruner()
        )
        for trial in self._study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self._storage.set_trial_user_attr(trial._trial_id, ENDED_BY_FORCE, True)
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def close(self) -> None:
        """Leave Optuna's log as it was."""
        self._optuna.logging.set_verbosity(self._verbosity)

    def ended(self) -> list[Trial]:
        """The trials that have ended, without those that were under way when the search was killed."""
        found = self._study.get_trials(deepcopy=False)
        kept = [trial for trial in found if trial.state.is_finished() and ENDED_BY_FORCE not in trial.user_attrs]
        return [_read(trial, number) for number, trial in enumerate(kept)]

    def propose(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """The next trial, under way from now on, and its settings."""
        seed = np.random.SeedSequence([self._plan.seed, len(self.ended())]).generate_state(1)[0]
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(seed), n_startup_trials=self._plan.startup)
        trial = self._study.ask()
        settings = {key: _draw(trial, key, options) for key, options in self._plan.choose.items()}
        trial.set_user_attr("settings", settings)
        return trial, settings

    def watch(self, trial: optuna.Trial, epoch: int, score: float) -> None:
        """Note a validation, and give the trial up where the plan says so.

        Raises:
            TrialPruned: it is given up.
        """
        trial.report(score, epoch)
        if trial.should_prune():
            raise self._optuna.TrialPruned

    def end(self, trial: optuna.Trial, state: State, score: float | None = None, **facts: Any) -> None:
        """Note how a trial ended, its facts first, so that one that has ended has all of them."""
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        self._study.tell(trial, score, state=self._optuna.trial.TrialState[STATES[state]])

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self._plan.pruning == "none":
            return self._optuna.pruners.NopPruner()
        return self._optuna.pruners.MedianPruner(n_startup_trials=self._plan.startup)


def optuna_or_hint() -> Any:
    """The package that proposes settings.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "tune", "diffgrm tune") from error
    return optuna


def _draw(trial: optuna.Trial, key: str, options: Options) -> Any:
    """A value of a setting. Values of a list may be anything that JSON can write, and are told apart by that."""
    if not isinstance(options, Range):
        texts = dict.fromkeys(json.dumps(value) for value in options)
        return json.loads(trial.suggest_categorical(key, list(texts)))
    if options.whole:
        step = 1 if options.step is None else int(options.step)
        return trial.suggest_int(key, int(options.min), int(options.max), step=step, log=options.log)
    found = trial.suggest_float(key, float(options.min), float(options.max), step=options.step, log=options.log)
    return min(max(float(f"{found:.{_digits(options)}g}"), float(options.min)), float(options.max))


def _digits(options: Range) -> int:
    """So many digits of a number as one would write it: six of those in which numbers of the range differ.

    >>> _digits(Range(min=0.1, max=0.95)), _digits(Range(min=1234567.1, max=1234567.9))
    (6, 12)
    """
    widest = max(abs(options.min), abs(options.max))
    return 6 + max(0, math.floor(math.log10(widest / (options.max - options.min))))


def _read(trial: optuna.trial.FrozenTrial, number: int) -> Trial:
    facts = dict(trial.user_attrs)
    curve = sorted(trial.intermediate_values.items())
    score = trial.value if trial.value is not None else (curve[-1][1] if curve else None)
    state = next(ours for ours, theirs in STATES.items() if theirs == trial.state.name)
    return Trial(number, state, facts.pop("settings"), None if state == "failed" else score, curve, facts)


class _Locked:
    """The lock of Optuna's file: whoever searches has locked the folder already."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing to give back."""


def _drop_half_line(path: Path) -> None:
    """A last line that was cut off, as by a full disk, would make the next one unreadable too."""
    if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)


def _check_lines(path: Path) -> None:
    """Make sure that every line is an event, for Optuna would stop at any other, or pass over it if it is the last."""
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else (), 1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "op_code" not in event:
            raise DataError(
                f"{path} is damaged: line {number} is no event of a search; put a copy of the file back, or search in "
                "another folder"
            )
