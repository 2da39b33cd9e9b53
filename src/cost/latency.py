"""Paired latency: several models timed in turns, so that what disturbs the machine disturbs all of them.

A turn is some calls of one model. The first finds in the caches what the others left there, as a program does that embeds now
and then; the last what the model itself left, as a program does that embeds one recording after another (the single stream
of MLPerf: Reddi et al., "MLPerf inference benchmark", ISCA 2020).
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnxruntime as ort
import torch
from tqdm import tqdm

from src.common import layout
from src.common.params import Profile
from src.cost.cpu import cpu
from src.runtime.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

Encoder = Callable[[np.ndarray], np.ndarray]

FP32 = layout.model("fp32")
WARM_UP = 3
SETTLE = 0.05  # seconds that a turn's calls take together before its last
RESAMPLES = 2000
ENGINES = ("torch", "onnxruntime", "speechbrain")


class Turns(NamedTuple):
    """Seconds that a model took in each round, [rounds]: the first and the last call of its turn."""

    first: np.ndarray
    last: np.ndarray


def measure(models: Mapping[str, Encoder], seconds: float, rounds: int, threads: int, seed: int = 0) -> dict:
    """Time models on the same audio at batch 1, interleaved; the first of them is the reference.

    models: {name: callable}, each from a waveform, float32 [1, samples], to an embedding; `speechbrain` and
    `onnx_file` make such. The audio is noise: none of them takes time that depends on what is said.

    Gives a dict for JSON: for each model what `summarise` gives; and the conditions: reference, seconds, rounds,
    threads, cpu, versions.
    """
    samples = round(seconds * SAMPLE_RATE)
    waveform = noise(samples, seed)
    with torch_threads(threads):
        calls = {name: lambda model=model: model(waveform) for name, model in models.items()}
        times = interleave(calls, rounds)
    reference = next(iter(models))
    return {
        "models": summarise(times, reference, seed),
        "reference": reference,
        "seconds": seconds,
        "rounds": rounds,
        "threads": threads,
        "cpu": cpu(),
        "versions": {engine: version(engine) for engine in ENGINES},
    }


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """What models are timed on: float32 [1, samples]."""
    return (0.1 * np.random.default_rng([seed, 1]).standard_normal((1, samples))).astype(np.float32)


def against_fp32(name: str, path: Path | str, profile: Profile, seed: int) -> dict:
    """What `measure` gives for models/fp32.onnx and, under `name`, the ONNX file `path`.

    profile: the section profile of the parameters.
    """
    models = {key: onnx_file(file, profile.threads) for key, file in (("fp32", FP32), (name, path))}
    return measure(models, profile.seconds, profile.rounds, profile.threads, seed)


def interleave(calls: Mapping[str, Callable], rounds: int, warm_up: int = WARM_UP) -> dict[str, Turns]:
    """What each call took, by name.

    Every round gives each call a turn: SETTLE seconds of it, and once more. The order rotates from round to round, so that
    none always runs in the wake of the same other. `warm_up` rounds of one call each are thrown away first.
    """
    names = list(calls)
    times = {name: Turns(np.empty(rounds), np.empty(rounds)) for name in names}
    for _ in range(warm_up):
        for call in calls.values():
            call()
    for i in tqdm(range(rounds), "latency", disable=None):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            spent = times[name].first[i] = _clocked(calls[name])
            while spent < SETTLE:
                spent += _clocked(calls[name])
            times[name].last[i] = _clocked(calls[name])
    return times


def _clocked(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summarise(times: Mapping[str, Turns], reference: str, seed: int = 0) -> dict[str, dict]:
    """Of what `interleave` gave, for each model: of its last calls median_ms, low_ms and high_ms (quartiles), speedup
    (median over the rounds of the reference's time / its own in the same round) and speedup_ci (its 95 % interval, by
    bootstrap over the rounds); of its first calls first_ms and first_speedup."""
    compared = times[reference]
    rounds = len(compared.last)
    resamples = np.random.default_rng([seed, 2]).integers(rounds, size=(RESAMPLES, rounds))
    summary = {}
    for name, taken in times.items():
        low, median, high = np.percentile(taken.last * 1e3, (25, 50, 75))
        ratios = compared.last / taken.last
        ci = np.percentile(np.median(ratios[resamples], axis=1), (2.5, 97.5))
        summary[name] = {
            "median_ms": float(median),
            "low_ms": float(low),
            "high_ms": float(high),
            "speedup": float(np.median(ratios)),
            "speedup_ci": {"low": float(ci[0]), "high": float(ci[1])},
            "first_ms": float(np.median(taken.first) * 1e3),
            "first_speedup": float(np.median(compared.first / taken.first)),
        }
    return summary


def speechbrain(classifier: "EncoderClassifier") -> Encoder:
    """The callable of SpeechBrain's EncoderClassifier, PyTorch eager; `measure` sets its threads."""

    def encode(waveform):
        with torch.inference_mode():
            return classifier.encode_batch(torch.from_numpy(waveform)).numpy()

    return encode


def onnx_file(path: Path | str, threads: int) -> Encoder:
    """The callable of an ONNX file in ONNX Runtime on the CPU, optimised as by default."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that go on spinning after a run would take the processor from the model which runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    return lambda waveform: np.asarray(session.run(None, {source: waveform})[0])


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch on this many threads, while the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
