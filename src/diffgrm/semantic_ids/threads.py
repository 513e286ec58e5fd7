"""One thread for the arithmetic that decides vectors and digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from threadpoolctl import threadpool_limits

_TURN = RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP (faiss's and torch's too) on one thread inside the block, or inside a decorated function.

    How many threads share a sum decides the order of its terms and so its last bits, and a digit may turn on those.
    The limit holds for the process, so blocks in different threads of Python take turns. It reaches the libraries that
    are loaded when the block begins: whoever imports torch inside one enters another after the import.
    """
    with _TURN, threadpool_limits(limits=1):
        yield
