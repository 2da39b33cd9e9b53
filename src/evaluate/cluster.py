"""Extraction on many machines: the workers of a Dask scheduler read the recordings and run the model.

They need what this process has: the recordings and the model under the same paths, and this code importable, as
`dask worker` finds it when it is started in a checkout of the same commit. Only names, checksums and embeddings travel.
"""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from src.runtime.errors import InputError, one_line

LOCAL = "local"  # in place of an address: processes of Dask on this machine
_MOST = 32  # recordings a task
_TASKS = 8  # at least, for every thread, so that none waits long for the last
T = TypeVar("T")


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at `address`. Raises InputError where none answers, or Dask is not installed."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise InputError(
            f"scheduler: {error}; pip install 'dask[distributed]' as pyproject.toml's group cluster"
        ) from None
    options = {"threads_per_worker": 1, "dashboard_address": None} if address == LOCAL else {"address": address}
    try:
        client = Client(**options, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler: {address}: {one_line(error)}") from None
    with client:
        yield client


def run(client: Any, function: Callable[[str], T], items: Sequence[str]) -> Iterator[tuple[int, T]]:
    """(number of the item, what the function gives for it), as they are done; function: of a module that workers import.

    What a worker had not finished when it died is given to another. Raises what the function raises, and InputError when
    the scheduler is lost or an item was given to workers that died, one after the other.
    """
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    threads = sum(client.nthreads().values())
    if not threads:
        print(f"waiting for workers of {client.scheduler.address}", flush=True)
    size = min(_MOST, max(1, len(items) // (_TASKS * max(1, threads))))
    numbers = [range(start, min(start + size, len(items))) for start in range(0, len(items), size)]
    try:
        tasks = [pickle.dumps(_Task(function, [items[i] for i in part])) for part in numbers]
        futures = client.map(pickle.loads, tasks, pure=False)  # a scheduler need not import this code
        parts = {future.key: part for future, part in zip(futures, numbers, strict=True)}
        completed = as_completed(futures, loop=client.loop, with_results=True)
        del futures  # a result is forgotten, by the scheduler too, once it was seen
        for future, results in completed:
            if isinstance(results, CancelledError):
                raise results
            yield from zip(parts[future.key], results, strict=True)
    except ModuleNotFoundError as error:
        raise InputError(f"scheduler: {error} on a worker; start workers in a checkout of this commit") from None
    except KilledWorker as error:
        raise InputError(f"scheduler: {one_line(error)}; the same command goes on from here") from None
    except (CommClosedError, CancelledError, OSError, TimeoutError) as error:
        raise InputError(f"scheduler: lost: {one_line(error)}; the same command goes on from here") from None


class _Task:
    """To unpickle it is to run it: the results of the function."""

    def __init__(self, function, items):
        self._work = function, items

    def __reduce__(self):
        return _results, self._work


def _results(function, items):
    return [function(item) for item in items]
