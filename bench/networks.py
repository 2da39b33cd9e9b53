"""Every kind of network at its published size, as this project makes it, beside a plain export of the same network:

    python -m bench.networks [--networks resnet] [--rounds 30] [--threads 1] [--seconds 3]
    python -m bench.networks --encoders models/pretrained/ecapa-mini models/pretrained/xvector-mini

The weights are those that SpeechBrain begins a training with: published ones take the same time. Of accuracy they say
nothing, and none is measured. Trained encoders are calibrated and tested on the speech of the pipeline's sample_data.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.networks")

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from bench import accuracy, competitors
from bench.models import REFERENCE
from src.common import params
from src.common.schema import Section
from src.cost import latency, onnx_macs
from src.data import manifest
from src.data.recordings import load_audio
from src.encoder import load
from src.encoder.export import export_onnx
from src.encoder.networks import NAMES, xvector
from src.quantize import ptq
from src.quantize.quantizer import GROUPS
from src.reporting.tables import markdown
from src.runtime import engine
from src.runtime.audio import SAMPLE_RATE, SHORTEST

# What is published differs from SpeechBrain's defaults in these arguments.
PUBLISHED: dict[str, dict[str, Any]] = {
    "ecapa": {"input_size": 80, "channels": [1024] * 4 + [3072]},
    "xvector": {"in_channels": 24},
    "resnet": {"input_size": 80},
}
COLUMNS = ("network", "model", "GMACs", "in INT8", "MB", "ms", "times as fast as SpeechBrain", "EER, %")


class Options(Section):
    networks: list[Literal[tuple(PUBLISHED)]] = Field(list(PUBLISHED), description="kinds of networks")
    encoders: list[str] = Field([], description="trained ones in their place: folders or hub ids")
    rounds: int = Field(30, ge=1)
    threads: int = Field(1, ge=1)
    seconds: Annotated[float, Field(ge=SHORTEST, le=60)] = Field(3, description="length of the audio")


def main(networks, encoders, rounds, threads, seconds):
    if encoders:
        tested = config, manifest_rows = params.load(), manifest.read()
        chosen = manifest.spread(manifest.needed(manifest_rows, "calibration"), config.ptq.utterances)
        waveforms = [load_audio(row) for row in chosen]
        compared = ((name, load.load(name)) for name in encoders)
    else:
        tested, waveforms = None, list(latency.noise(2 * SAMPLE_RATE).reshape(2, -1))
        compared = ((NAMES[name].title, initial(name, PUBLISHED[name])) for name in networks)
    rows = []
    for name, classifier in compared:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, classifier, waveforms, rounds, threads, seconds, Path(folder), tested)
    print(markdown(COLUMNS, rows))


def measure(
    name: str,
    classifier: Any,
    waveforms: list[np.ndarray],
    rounds: int,
    threads: int,
    seconds: float,
    folder: Path,
    tested: tuple[params.Params, list[manifest.Row]] | None = None,
) -> list[list[str]]:
    """Rows of COLUMNS for one network.

    classifier: SpeechBrain's; waveforms: each float32 [samples], what INT8 is calibrated on; folder: where files are written;
    tested: parameters and manifest, for the EER on its test split.
    """
    made = competitors.Competitors(classifier, waveforms, folder)
    front_end, plain = load.rewritten(classifier)
    prepared = ptq.prepare(plain, "minmax", dict.fromkeys(GROUPS, 7))
    ptq.calibrate_activations(prepared, (front_end(torch.from_numpy(waveform)[None]) for waveform in waveforms))
    ours = {"fp32": (plain, None), "ptq": (ptq.convert(prepared), engine.PORTABLE)}
    for kind, (network, weights) in ours.items():
        export_onnx(torch.nn.Sequential(front_end, network), folder / f"{kind}.onnx", weights)
    peers = {REFERENCE: made.speechbrain(), "onnxruntime": made.onnxruntime(), "static": made.quantize_static()}
    calls = {key: model.on(threads) for key, model in peers.items()}
    calls |= {kind: latency.onnx_file(folder / f"{kind}.onnx", threads) for kind in ours}
    taken = latency.measure(calls, seconds, rounds, threads)["models"]
    errors = accuracy.measure(calls, tested[1], tested[0]) if tested else {}
    titles = {key: (model.title, model.size_mb, None) for key, model in peers.items()}
    for kind in ours:
        path = folder / f"{kind}.onnx"
        titles[kind] = (f"this project's {kind}.onnx", os.path.getsize(path) / 1e6, onnx_macs.cost(path, seconds))
    return [
        [
            name,
            title,
            *((f"{cost['gmacs']:.3f}", f"{cost['int8_mac_share']:.1%}") if cost else ("", "")),
            f"{size:.2f}",
            f"{taken[key]['median_ms']:.1f}",
            f"{taken[key]['speedup']:.2f}",
            _percent(errors[key]) if errors else "",
        ]
        for key, (title, size, cost) in titles.items()
    ]


def _percent(found):
    low, high = (100 * found["eer_ci"][end] for end in ("low", "high"))
    return f"{100 * found['eer']:.2f} [{low:.2f}, {high:.2f}]"


def initial(name: str, arguments: dict) -> Any:
    """SpeechBrain's EncoderClassifier with a network of this kind as it is before training."""
    load.prepare_speechbrain()
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    kind = NAMES[name]
    torch.manual_seed(0)
    modules = {
        "compute_features": Fbank(n_mels=arguments[kind.mels]),
        "mean_var_norm": InputNormalization(norm_type="sentence", std_norm=False),
        "embedding_model": kind.speechbrain(**arguments),
    }
    xvector.settle(modules["embedding_model"])
    return EncoderClassifier(modules=modules, hparams={}, run_opts={"device": "cpu"})
