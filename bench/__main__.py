"""Time our models beside their competitors, with the accuracy of each; see bench/README.md.

Needs the pipeline's outputs in the working directory. Writes bench/results.json, bench/results.svg and
bench/scaling.svg there, and prints the tables.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.__main__")

import os
import platform
import tempfile
from importlib.metadata import version
from typing import Annotated, Literal

from pydantic import Field
from tqdm import tqdm

from src.common import params
from src.common.files import write_json
from src.common.schema import Section
from src.cost import cpu, latency
from src.data import manifest
from src.data.recordings import load_audio
from src.encoder import load
from src.runtime.audio import SHORTEST

try:
    import nncf  # noqa: F401
    import openvino  # noqa: F401
except ImportError as missing:
    raise SystemExit(f"error: {missing}; pip install -r requirements-bench.txt, or make bench") from None

from bench import accuracy, competitors, plot, scaling, table, timing
from bench.models import OURS, REFERENCE, ours
from bench.webassembly import UnavailableError

RESULTS, BARS, SCALING = "bench/results.json", "bench/results.svg", "bench/scaling.svg"
NAMES = (*competitors.NAMES, *OURS)
VERSIONS = ("torch", "speechbrain", "onnxruntime", "openvino", "nncf", "onnx", "numpy")


Count = Annotated[int, Field(ge=1)]


class Options(Section):
    rounds: Count = Field(30, description="at most, in each setting")
    budget: float = Field(
        20, gt=0, description=f"seconds that the rounds of a setting may take, as long as there are {timing.FEWEST}"
    )
    threads: list[Count] = Field([1, 2])
    seconds: list[Annotated[float, Field(ge=SHORTEST, le=600)]] = Field([1, 3, 10], description="lengths of the audio")
    batch: list[Count] = Field([1, 8])
    only: list[Literal[NAMES]] = Field(list(NAMES), description=f"models to run beside {REFERENCE}")
    skip_scaling: bool = Field(False, description="no growth with length and batch, no extraction")


def main(rounds, budget, threads, seconds, batch, only, skip_scaling):
    config = params.load()
    rows = manifest.read()
    calibration = manifest.spread(manifest.needed(rows, "calibration"), config.ptq.utterances)
    tested = manifest.needed(rows, "test")
    only = {REFERENCE, *only}
    wanted = [name for name in NAMES if name in only or (name in scaling.MODELS and not skip_scaling)]

    def made_by(make, names, title):
        models = {}
        for name in tqdm(names, title, unit="model", disable=None):
            try:
                models[name] = make(name)
            except UnavailableError as reason:
                print(f"{name}: not timed: {reason}")
        return models

    own = made_by(ours, [name for name in wanted if name in OURS], "own")
    classifier = load.load(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    with tempfile.TemporaryDirectory() as folder:
        made = competitors.Competitors(classifier, [load_audio(row) for row in calibration], folder)
        others = [name for name in wanted if name in competitors.NAMES]
        models = made_by(lambda name: getattr(made, name)(), others, "competitors") | own
        most = max(threads)
        with latency.torch_threads(most):
            found = accuracy.measure({name: model.on(most) for name, model in models.items()}, rows, config)
        compared = {name: model for name, model in models.items() if name in only}
        shapes = [(length, size) for length in seconds for size in batch]
        results = {
            "conditions": {
                "cpu": cpu.cpu() | {"cores": os.cpu_count()},
                "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
                "encoder": config.encoder.source,
                "calibration_utterances": len(calibration),
                "test_utterances": len(tested),
                "test_speakers": len({row.speaker for row in tested}),
            },
            "models": {
                name: {"title": model.title, "setting": model.setting, "size_mb": model.size_mb, **found[name]}
                for name, model in models.items()
            },
            "settings": [
                setting
                for count in threads
                for setting in timing.measure(compared, shapes, count, rounds, budget, config.seed)
            ],
        }
        if not skip_scaling:
            results["scaling"] = scaling.measure(
                {name: models[name] for name in scaling.MODELS}, rounds, budget / 4, config.seed
            )
    write_json(RESULTS, results)
    plot.bars(BARS, results)
    if "scaling" in results:
        plot.scaling(SCALING, results)
    print(table.text(results))
