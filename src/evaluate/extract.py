"""Embeddings of recordings by an ONNX model: on all cores, or on the workers of a Dask scheduler, and resumable."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from onnxruntime import InferenceSession
from tqdm import tqdm

from src.common.files import sha256
from src.data.manifest import Row
from src.data.recordings import load_audio, load_path
from src.evaluate import cluster, store
from src.evaluate.store import Embedding, Store
from src.runtime import engine
from src.runtime.audio import WINDOWS, limits, waveform
from src.runtime.errors import AudioError, InputError, reason

QUEUED = 256  # recordings handed to the threads at once: a pool keeps some memory for every one that waits
STORES = Path(".embeddings")  # of the stages: no output of theirs, since DVC deletes those before a stage runs
Read = Callable[[str], tuple[np.ndarray, bool]]
T = TypeVar("T")


def embed(
    model: str | os.PathLike | InferenceSession,
    rows: Sequence[Row],
    workers: int | None = None,
    audio: Callable[[Row], np.ndarray] = load_audio,
) -> np.ndarray:
    """Embeddings of manifest rows: float32 [rows, dim], as the model gives them (not length-normalised).

    model: an ONNX file, or a `session`, with input `waveform` float32 [batch, samples] and output
    `embedding`. Utterances run one at a time at their full length, on `workers` threads (None: one for each
    CPU); the result does not depend on their number. Memory is that of the embeddings and of what the threads
    work on. audio: gives a row's waveform, float32 [n]. Raises InputError when a file cannot be read or an
    embedding is zero or not finite.
    """
    session = model if isinstance(model, InferenceSession) else engine.session(model)
    return embed_by([session], rows, workers, audio)[0]


def embed_by(
    sessions: Sequence[InferenceSession],
    rows: Sequence[Row],
    workers: int | None = None,
    audio: Callable[[Row], np.ndarray] = load_audio,
) -> list[np.ndarray]:
    """What `embed` gives of each of the models; a row's waveform is made once for all of them."""
    values = [np.empty((len(rows), session.get_outputs()[0].shape[1]), np.float32) for session in sessions]

    def one(row):
        try:
            waveform = audio(row)
            return [engine.embedding(session, waveform) for session in sessions]
        except AudioError as error:
            raise InputError(f"{row.path}: {error}") from None

    done = tqdm(on_threads(one, rows, workers), "embeddings", len(rows), unit="utterance", disable=None)
    for number, embeddings in enumerate(done):
        for of_model, embedding in zip(values, embeddings, strict=True):
            of_model[number] = embedding
    return values


@contextlib.contextmanager
def resumable(
    model: str | os.PathLike, path: Path, scheduler: str | None = None
) -> Iterator[Callable[[Sequence[Row]], np.ndarray]]:
    """What gives the embeddings of manifest rows, as `embed`, and keeps them in a store at `path` until the end of the
    block; where that fails, or the process is killed, a block with the same model goes on from there.

    scheduler: as for `embeddings`. Raises InputError as `store.opened` and `cluster.connected`.
    """
    dimensions = engine.session(model).get_outputs()[0].shape[1]
    with (
        store.opened(path, settings(model, audio="manifest")) as done,
        cluster.connected(scheduler) if scheduler else contextlib.nullcontext() as client,
    ):

        def embedded(rows: Sequence[Row]) -> np.ndarray:
            values = np.empty((len(rows), dimensions), dtype=np.float32)
            for number, result in embeddings(model, [row.path for row in rows], manifest_audio, done, client=client):
                if isinstance(result, str):
                    raise InputError(f"{rows[number].path}: {result}")
                values[number] = result.values
            return values

        yield embedded
        done.discard()


def settings(model: str | os.PathLike, **others: Any) -> dict[str, Any]:
    """Of a store: what the embeddings of a file follow from, beside its content."""
    return {"model": sha256(model), "onnxruntime": onnxruntime.__version__, **others}


def reading(
    model: str | os.PathLike, max_seconds: float | None, channel: int | None
) -> tuple[dict[str, Any], Read, int | None]:
    """(`settings` of a store, `read` and `window` for `embeddings`) of recordings of any kind.

    max_seconds: that the model hears at once (see `audio.limits`); channel: as for `audio.waveform`.
    """
    most, window = limits(max_seconds)
    read = functools.partial(waveform, max_seconds=most, channel=channel)
    return settings(model, max_seconds=max_seconds, windows=WINDOWS, channel=channel), read, window


def embeddings(
    model: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    read: Read,
    done: Store,
    workers: int | None = None,
    client: Any = None,
    window: int | None = None,
) -> Iterator[tuple[int, Embedding | str]]:
    """(number of the path, its Embedding, or the reason why there is none), those that are in the store first.

    read: a function of a module, or `functools.partial` of one, that gives the waveform of a path, float32 [n] at 16 kHz,
    and whether its channels differ; it raises AudioError. workers: threads, None for one a CPU. client: of
    `cluster.connected`, whose workers read the files in their place; each runs the model on one thread, so that the
    embeddings are the same bytes on processors of one kind. window: as for `engine.embedding`. What is computed is added to
    the store.
    """
    full = [os.path.abspath(path) for path in paths]
    todo = list(range(len(full)))
    with tqdm(total=len(full), desc="embeddings", unit="file", disable=None) as bar:
        if len(done):
            todo = []
            for number, checksum in enumerate(on_threads(_checksum, full, workers)):
                if (embedding := done.get(checksum)) is None:
                    todo.append(number)
                else:
                    bar.update()
                    yield number, embedding
            if len(todo) < len(full):
                print(f"{len(full) - len(todo)} of {len(full)} were done before", file=sys.stderr, flush=True)
        job = _Job(os.path.abspath(model), sha256(model), onnxruntime.__version__, read, window)
        files = [full[number] for number in todo]
        results: Any = cluster.run(client, job, files) if client else enumerate(on_threads(job, files, workers))
        with contextlib.closing(results) if client else contextlib.nullcontext():
            for place, result in results:
                if isinstance(result, Embedding):
                    done.add(result)
                bar.update()
                yield todo[place], result


@dataclass(frozen=True)
class _Job:
    """The Embedding of a path, or the reason why there is none; may be sent to another machine."""

    model: str
    checksum: str
    version: str
    read: Read
    window: int | None

    def __call__(self, path: str) -> Embedding | str:
        session = _session(self.model, self.checksum, self.version)
        try:
            samples, differ = self.read(path)
            values = engine.embedding(session, samples, self.window)
            return Embedding(sha256(path), values, differ)
        except AudioError as error:
            return str(error)
        except OSError as error:
            return f"unreadable: {reason(error)}"


@functools.lru_cache(maxsize=1)
def _session(model, checksum, version):
    if onnxruntime.__version__ != version:
        raise InputError(f"scheduler: a worker has onnxruntime {onnxruntime.__version__}; {version} is needed")
    session = engine.session(model)
    if sha256(model) != checksum:
        raise InputError(f"{model}: is another model here than where the run was started")
    return session


def manifest_audio(path: str) -> tuple[np.ndarray, bool]:
    """What `embeddings` reads of a manifest row's path."""
    return load_path(path), False


def _checksum(path):
    """Of a file; None where it cannot be read: reading it as a recording tells why."""
    try:
        return sha256(path) if os.path.isfile(path) else None
    except OSError:
        return None


def on_threads(function: Callable[[Any], T], items: Sequence, workers: int | None = None) -> Iterator[T]:
    """What the function gives for each item, in order. workers: threads, None for one a CPU."""
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for start in range(0, len(items), QUEUED):
            yield from pool.map(function, items[start : start + QUEUED])
    finally:
        pool.shutdown(cancel_futures=True)
