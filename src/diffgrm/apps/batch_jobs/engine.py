"""Ray Data, as batch jobs use it: a pool of workers to which the numbers of partitions are handed out.

A worker catches what goes wrong in a partition and hands it back as a text, for an exception in an actor would end the
whole job. What kills a worker's process is Ray's to mend, which starts another one and gives it the same partition again,
for ever; so a worker notes what it begins, and a partition at which workers died time after time is given up, with the
reason.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from diffgrm.foundation.schema import DataError, DiffGRMError, MissingExtraError, out_of_memory
from diffgrm.foundation.terminal import progress_bar

logger = logging.getLogger(__name__)

DEATHS = 3  # of workers at one partition, after which it is given up
FAILURES = 5  # partitions that fail before the job stops to hand out others
SHARE = 0.9  # of Ray's CPUs that workers hold at most, lest a pool as large as the machine waits for itself
STORE = 2**28  # bytes of a local Ray's object store; a job keeps nothing there but numbers
LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # environment of a local Ray
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name)]  # the latter on Windows
SECONDS = 5  # that an address has to answer in
ADDRESSES = "'ray://HOST:10001', 'HOST:6379', or 'auto' for the Ray that runs on this machine"


@dataclass(frozen=True)
class Pool:
    """Where a job computes.

    Attributes:
        address: of a Ray cluster; None is a Ray of this machine's, for as long as the job lasts.
        concurrency: workers; None is one a CPU, or as many as there are GPUs for.
        gpus_per_worker: 0 is none; 0.5 lets two workers share one.
    """

    address: str | None = None
    concurrency: int | None = None
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency is not None and not is_count(self.concurrency):
            raise DataError(f"concurrency is {self.concurrency!r}; expected a number of workers from 1")
        gpus = self.gpus_per_worker
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if not number or not (0 <= gpus < float("inf")) or (gpus > 1 and gpus != int(gpus)):
            raise DataError(f"gpus_per_worker is {gpus!r}; expected 0, a part of one such as 0.5, or a whole number")


class Task(Protocol):
    """What a job has to do, as a value that is sent to the workers."""

    def ready(self) -> Callable[[int], None]:
        """Load what all partitions need; what computes and writes one of them, by its number."""
        ...


class Problem(NamedTuple):
    """What went wrong with a partition.

    Attributes:
        told: in words.
        of_data: the data cannot be used, so that no other run will do better.
    """

    told: str
    of_data: bool


class Worker:
    """One process of the pool; it gets ready once, and then does one partition after the other.

    Args:
        task: what is to do.
        tries: folder of notes on what workers have begun.
        hint: what helps where a worker dies, which is for want of memory as a rule.
    """

    def __init__(self, task: Task, tries: Path, hint: str) -> None:
        self._tries, self._hint = tries, hint
        self._problem: Problem | None = None
        try:
            self._do = task.ready()
        except Exception as error:  # the process ends here: whatever it was is told to the one that waits, and logged
            logger.exception("a worker could not get ready")
            self._problem = self._told(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A row of Ray Data, ``number``, to another, ``number``, ``told`` (``""``: nothing went wrong) and ``of_data``."""
        (number,) = batch["number"]
        problem = self.do(int(number)) or Problem("", False)
        return {"number": batch["number"], "told": np.array([problem.told]), "of_data": np.array([problem.of_data])}

    def do(self, number: int) -> Problem | None:
        """Do one partition; what went wrong, if anything did."""
        if self._problem is not None:
            return self._problem
        if len(list(self._tries.glob(f"{number}-*"))) >= DEATHS:
            return Problem(f"{DEATHS} workers died at it, most likely for want of memory; {self._hint}", False)
        note = self._tries / f"{number}-{secrets.token_hex(4)}"
        try:
            note.touch()
            self._do(number)
        except Exception as error:  # as above; other partitions go on
            if not isinstance(error, DiffGRMError):  # whose message says it all
                logger.exception("partition %d failed", number)
            return self._told(error)
        finally:
            note.unlink(missing_ok=True)  # a process that is killed leaves it there
        return None

    def _told(self, error: Exception) -> Problem:
        if out_of_memory(error):
            return Problem(f"there was not memory enough ({type(error).__name__}); {self._hint}", False)
        if isinstance(error, DiffGRMError):
            return Problem(str(error), isinstance(error, DataError))
        return Problem(f"{type(error).__name__}: {error}", False)


@dataclass(frozen=True)
class Work:
    """Some partitions of a task.

    Attributes:
        what: said beside the progress bar; quiet: there is none.
        numbers: of the partitions to do, of ``total`` in all.
        own: folder for notes, which all workers see.
        hint: what helps against want of memory.
    """

    what: str
    task: Task
    numbers: Sequence[int]
    total: int
    own: Path
    hint: str
    quiet: bool

    def here(self) -> dict[int, Problem]:
        """Do it in this process; see :meth:`Engine.do`."""
        if not self.numbers:
            return {}
        with self.bar() as progress:
            worker, problems = Worker(self.task, self.notes(), self.hint), {}
            for number in self.numbers:
                if (problem := worker.do(number)) is not None:
                    problems[number] = problem
                progress(1)
        return problems

    def bar(self) -> AbstractContextManager[Callable[[int], None]]:
        """The progress bar, see :func:`progress_bar`."""
        return progress_bar(self.what, self.total, self.quiet, done=self.total - len(self.numbers))

    def notes(self) -> Path:
        """A folder for notes on what workers have begun, without those of an earlier run."""
        tries = self.own / "tries"
        shutil.rmtree(tries, ignore_errors=True)
        tries.mkdir(parents=True)
        return tries


class Results:
    """What a pool of workers hands back, in the order in which it is done.

    Args:
        task, numbers, notes, hint: see :class:`Work`.
        size: of the pool; cpus, gpus: that each worker holds.
    """

    def __init__(
        self, task: Task, numbers: Sequence[int], notes: Path, hint: str, size: int, cpus: float, gpus: float
    ) -> None:
        import ray.data

        rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        results = rows.map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(task, notes, hint),
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        results.context.enable_progress_bars = False  # there is one of ours
        self._rows = iter(results.iter_rows())

    def following(self) -> tuple[int, Problem | None] | None:
        """The number of the next partition, and what went wrong with it; None after the last."""
        row = next(self._rows, None)
        if row is None:
            return None
        return int(row["number"]), Problem(str(row["told"]), bool(row["of_data"])) if row["told"] else None


@dataclass(frozen=True)
class Engine:
    """A Ray that this process is connected to.

    Attributes:
        ray: the module.
        pool: what was asked for.
        local: whether this process started it, so that it will not grow.
    """

    ray: Any
    pool: Pool
    local: bool

    def __post_init__(self) -> None:
        cpus, gpus = self._amount("CPU"), self._amount("GPU")
        wanted, each = self.workers, self.pool.gpus_per_worker
        short = []
        if each and each * wanted > gpus:
            short.append(f"{wanted} workers with {each:g} GPUs each need {each * wanted:g} GPUs, and Ray has {gpus:g}")
        if wanted > cpus:
            short.append(f"{wanted} workers need a CPU each, and Ray has {cpus:g}")
        if short and self.local:
            raise DataError("; ".join(short) + "; lower --concurrency or --gpus-per-worker")
        if short:
            logger.warning("%s; those that find no room wait for it", "; ".join(short))

    @property
    def workers(self) -> int:
        """How many there are to be."""
        each = self.pool.gpus_per_worker
        most = int(self._amount("GPU") / each) if each else int(self._amount("CPU"))
        return self.pool.concurrency or max(1, most)

    def do(self, work: Work) -> dict[int, Problem]:
        """Let workers do some partitions; what went wrong with which.

        Raises:
            DiffGRMError: Ray could not go on.
        """
        if not work.numbers:
            return {}
        size, cpus = min(self.workers, len(work.numbers)), self._amount("CPU")
        share = min(1.0, SHARE * cpus / size) if size <= cpus else 1.0
        arguments = work.task, list(work.numbers), work.notes(), work.hint, size, share, self.pool.gpus_per_worker
        problems: dict[int, Problem] = {}
        with _quiet("ray.data"), work.bar() as progress:
            try:
                following = self._results(arguments)
                while len(problems) < FAILURES and (result := following()) is not None:
                    number, problem = result
                    progress(1)
                    if problem is not None:
                        problems[number] = problem
            except Exception as error:  # Ray raises what happens in any of its processes, of any class
                raise DiffGRMError(
                    f"Ray could not go on: {type(error).__name__}: {_first_line(error)}; what is done is kept, and the "
                    f"same command goes on. If workers died as they started, there was not memory enough; {work.hint}"
                ) from error
        return problems

    def _results(self, arguments: tuple[Any, ...]) -> Callable[[], tuple[int, Problem | None] | None]:
        """What gives the next of :class:`Results`; Ray Data does not run in a client, so there they are an actor's."""
        from ray.util.client import ray as client

        if not client.is_connected():
            return Results(*arguments).following
        actor = self.ray.remote(num_cpus=0)(Results).remote(*arguments)
        return lambda: self.ray.get(actor.following.remote())  # type: ignore[no-any-return]

    def _amount(self, resource: str) -> float:
        return float(self.ray.cluster_resources().get(resource, 0.0))


def is_count(value: object) -> bool:
    """Whether it is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def require_ray(purpose: str) -> None:
    """Complain before any work where the extra is not installed.

    Raises:
        MissingExtraError: Ray Data cannot be imported.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray", purpose) from error


@contextmanager
def engine(pool: Pool) -> Iterator[Engine]:
    """A Ray for as long as the block lasts: the one that this process is connected to, that of an address, or a local one.

    Raises:
        DataError: nobody answers at the address, or Ray has not what is asked for.
        DiffGRMError: none can be started here.
    """
    import ray

    address = pool.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        if pool.address is not None:
            raise DataError(
                f"this process is connected to a Ray already; leave the address {pool.address!r} out, or call "
                "ray.shutdown() first"
            )
        yield Engine(ray, pool, local=False)
        return
    with _quiet("ray"):
        try:
            with _handlers_kept():
                if address is None:
                    _start(ray)
                else:
                    _connect(ray, address)
            yield Engine(ray, pool, local=address is None)
        finally:
            ray.shutdown()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """What is to happen on signals stays as it was: Ray sets handlers of its own where it begins."""
    before = {number: signal.getsignal(number) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _start(ray: Any) -> None:
    """Start a Ray that only this process uses, and that tells nobody. Others need its token, which Ray makes."""
    settings = {name: value for name, value in LOCAL.items() if name not in os.environ}
    os.environ.update(settings)
    try:
        ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **QUIET)
    except Exception as error:  # as above, of processes that it starts
        raise DiffGRMError(
            f"no Ray could be started on this machine: {type(error).__name__}: {_first_line(error)}; it needs room in "
            "/dev/shm and /tmp, and its token in ~/.ray (or RAY_AUTH_MODE=disabled, and then anybody here can use it)"
        ) from error
    finally:
        for name in settings:
            os.environ.pop(name, None)


def _connect(ray: Any, address: str) -> None:
    if address != "auto":
        _check_answers(address)
    try:
        ray.init(address=address, **({} if address.startswith("ray://") else QUIET))
    except Exception as error:  # as above, of a cluster
        raise DataError(
            f"no Ray can be used at {address!r}: {type(error).__name__}: {_first_line(error)}; expected {ADDRESSES}. It "
            "needs the Python and Ray that run here, and its token where it has one (RAY_AUTH_MODE=token)"
        ) from error


def _check_answers(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise DataError(f"the Ray address {address!r} is none; expected {ADDRESSES}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except (OSError, OverflowError) as error:
        raise DataError(
            f"nobody answers at the Ray address {address!r}: {error}; expected {ADDRESSES}; without an address, a Ray of "
            "this machine's is started"
        ) from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A logger tells errors only."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
