"""Extraction by Dask's workers: utterances a second with one worker process and with two, and what the second adds.

    python -m bench.cluster [--model models/fp32.onnx] [--utterances 600]

Efficiency is the rate of two over twice that of one: at 1, the second core is used as well as the first. Scheduler and
client take their part of the same cores. Rounds of one and of two take turns, and the best of each counts.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.cluster")

import itertools
import tempfile
import time
from pathlib import Path

from pydantic import Field

from src.common.schema import Section
from src.data import manifest
from src.evaluate import extract, store


class Options(Section):
    model: Path = Field(Path("models/fp32.onnx"), description="an ONNX file")
    utterances: int = Field(600, ge=32, description="of the manifest, over and over where there are fewer")
    rounds: int = Field(3, ge=1)


def main(model, utterances, rounds):
    paths = [row.path for row in itertools.islice(itertools.cycle(manifest.read()), utterances)]
    print(f"{model}, {utterances} utterances\n{'workers':>8}{'threads':>12}{'processes of Dask':>20}  utterances/s")
    rates = dict.fromkeys((1, 2), (0.0, 0.0))
    for _ in range(rounds):
        for workers in rates:
            new = _rate(model, paths, workers, None), _on_dask(model, paths, workers)
            rates[workers] = tuple(map(max, rates[workers], new))
    for workers, (threads, processes) in rates.items():
        print(f"{workers:>8}{threads:>12.1f}{processes:>20.1f}")
    threads, processes = (two / one / 2 for one, two in zip(*rates.values(), strict=True))
    print(f"{'efficiency':>8}{threads:>10.0%}{processes:>20.0%}")


def _on_dask(model, paths, workers):
    from distributed import Client

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "set_as_default": False}
    with Client(**options) as client:
        _rate(model, paths[:32], workers, client)  # loads the model in each
        return _rate(model, paths, workers, client)


def _rate(model, paths, workers, client):
    with tempfile.TemporaryDirectory() as folder, store.opened(Path(folder, "store"), {}) as done:
        start = time.perf_counter()
        for _ in extract.embeddings(model, paths, extract.manifest_audio, done, workers, client):
            pass
        return len(paths) / (time.perf_counter() - start)
