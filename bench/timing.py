"""Time in each setting: threads, length and batch."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from bench.models import Model
from src.cost import latency
from src.runtime.audio import SAMPLE_RATE

FEWEST = 5  # rounds


def measure(
    models: Mapping[str, Model],
    shapes: Sequence[tuple[float, int]],
    threads: int,
    rounds: int,
    budget: float,
    seed: int,
) -> list[dict]:
    """Time models, {name: models.Model}, interleaved; the first is the reference.

    shapes: (seconds, batch) of each setting. Gives a list of dicts: threads, seconds, batch, rounds and
    models, which is what `latency.summarise` gives. A setting gets `rounds` rounds, or as many as take
    `budget` seconds, but at least FEWEST. All models hear the same noise; none takes time that depends on
    what is said.
    """
    settings = []
    with latency.torch_threads(threads):
        ready = {name: model.on(threads) for name, model in models.items()}
        for seconds, batch in tqdm(shapes, f"{threads} thread(s)", unit="setting", disable=None):
            size = batch, round(seconds * SAMPLE_RATE)
            waveform = (0.1 * np.random.default_rng([seed, 1]).standard_normal(size)).astype(np.float32)
            calls = {name: lambda call=call, waveform=waveform: call(waveform) for name, call in ready.items()}
            fitting = int(min(rounds, max(FEWEST, budget / _one_round(calls))))
            taken = latency.summarise(latency.interleave(calls, fitting, warm_up=0), next(iter(models)), seed)
            settings.append(
                {"threads": threads, "seconds": seconds, "batch": batch, "rounds": fitting, "models": taken}
            )
    return settings


def _one_round(calls):
    """Seconds that a round takes, after another in which engines prepare for the shape."""
    for call in calls.values():
        call()
    start = time.perf_counter()
    latency.interleave(calls, 1, warm_up=0)
    return time.perf_counter() - start
