"""The time that `qat_search.objective: time` predicts for a student, beside the time that it takes: python -m bench.prediction

For the encoder and the calibration speech of params.yaml, after stage `sample_data`. One thread, an utterance of 2 s. What
predicts is measured before and once more after the students, since the machine is not as fast at all times: both are given.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.prediction")

import tempfile
from pathlib import Path

import torch
from pydantic import Field

from src.common import params
from src.common.schema import Section
from src.cost import latency
from src.cost.cpu import cpu
from src.data import manifest
from src.encoder import load
from src.encoder.export import export_onnx
from src.quantize import ptq
from src.reporting.tables import markdown
from src.runtime.audio import SAMPLE_RATE
from src.search import structure, student
from src.search.moments import FRAMES

COLUMNS = [
    "share asked for",
    "width",
    "channels",
    "step",
    "stride",
    "GMACs for 3 s",
    "predicted, ms: before, after",
    "taken, ms",
    "more, %",
]


class Options(Section):
    shares: list[float] = Field([1.0, 0.8, 0.6, 0.5, 0.4], description="of the whole network's time", min_length=1)
    rounds: int = Field(50, ge=1)


def main(shares: list[float], rounds: int) -> None:
    config = params.load()
    front_end, network = load.plain(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    network.requires_grad_(False)
    features = ptq.calibration_features(front_end, manifest.read(), config.ptq.utterances)
    structures = structure.measure(network, features)
    source = student.Source(structures, features, config.ptq.observer, ptq.weight_bits(config.quantize))
    before = structures.priced(source.milliseconds(front_end))
    chosen = {share: before.of_share(share) for share in shares}
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for share, each in chosen.items():
            path = Path(folder, f"{share}.onnx")
            export_onnx(torch.nn.Sequential(front_end, ptq.convert(source.student(each))), path)
            models[str(share)] = latency.onnx_file(path, 1)
        timed = latency.measure(models, (FRAMES - 1) * front_end.hop / SAMPLE_RATE, rounds, 1)["models"]
    after = structures.priced(source.milliseconds(front_end))
    print(f"{cpu()['model']}, {', '.join(cpu()['extensions'])}; {rounds} interleaved rounds\n")
    rows = []
    for share, each in chosen.items():
        predicted, taken = [one.cost(each) for one in (before, after)], timed[str(share)]["median_ms"]
        gmacs, _ = source.cost(structures.network(each), 301)
        rows.append(
            [
                f"{share:g}",
                f"{each.width:g}",
                each.channels or "all",
                each.frames.step,
                each.frames.stride,
                f"{gmacs:.3f}",
                ", ".join(f"{ms:.2f}" for ms in predicted),
                f"{taken:.2f}",
                ", ".join(f"{100 * (ms / taken - 1):+.0f}" for ms in predicted),
            ]
        )
    print(markdown(COLUMNS, rows))
