"""Stage `profile`: what the encoder costs, in multiply-accumulates, parameters, bytes and milliseconds."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.profile", alone=True)

import os
from pathlib import Path

import torch

from src.common import params
from src.common.files import write_csv, write_json
from src.cost import latency, macs, onnx_macs
from src.encoder import load
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError

LAYERS, METRICS, LATENCY = "metrics/macs.csv", "metrics/profile.json", "metrics/latency.json"


def main():
    config = params.load()
    wanted = config.profile
    if not Path(latency.FP32).is_file():
        raise InputError(f"{latency.FP32}: no such file; run the stage baseline")
    classifier = load.load(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    layers, metrics = _costs(classifier, wanted.seconds)
    models = {"speechbrain": latency.speechbrain(classifier), "fp32": latency.onnx_file(latency.FP32, wanted.threads)}
    timings = latency.measure(models, wanted.seconds, wanted.rounds, wanted.threads, config.seed)
    write_csv(LAYERS, macs.COLUMNS, macs.rows(layers))
    write_json(METRICS, metrics)
    write_json(LATENCY, timings)
    _summarise(metrics, timings)


def _costs(classifier, seconds):
    """The layers of SpeechBrain's encoder, and the metrics of it and of the file made from it."""
    with torch.no_grad():
        features = classifier.mods["compute_features"](torch.zeros(1, round(seconds * SAMPLE_RATE)))
    network = classifier.mods["embedding_model"]
    layers = macs.count(network, features)
    total = sum(layer.macs for layer in layers)
    file = onnx_macs.cost(latency.FP32, seconds)
    return layers, {
        "seconds": seconds,
        "gmacs": total / 1e9,
        "gflops": 2 * total / 1e9,
        "rewritten_gmacs": file["gmacs"],
        "front_end_gmacs": file["front_end_gmacs"],
        "int8_mac_share": file["int8_mac_share"],
        "params_million": sum(p.numel() for p in network.parameters()) / 1e6,
        "checkpoint_mb": os.path.getsize(classifier.hparams.checkpoint) / 1e6,
        "size_mb": file["size_mb"],
    }


def _summarise(metrics, timings):
    slow, fast = (timings["models"][name] for name in ("speechbrain", "fp32"))
    print(
        f"encoder: {metrics['gmacs']:.4f} GMACs = {metrics['gflops']:.4f} GFLOPs for "
        f"{metrics['seconds']:g} s, {metrics['params_million']:.2f} M parameters, "
        f"checkpoint {metrics['checkpoint_mb']:.1f} MB"
    )
    print(
        f"{latency.FP32}: {metrics['rewritten_gmacs']:.4f} GMACs and {metrics['front_end_gmacs']:.4f} in the front "
        f"end, {metrics['size_mb']:.1f} MB"
    )
    print(
        f"latency on {timings['threads']} thread(s): SpeechBrain {slow['median_ms']:.1f} ms, {latency.FP32} "
        f"{fast['median_ms']:.1f} ms, {fast['speedup']:.2f} times as fast "
        f"({fast['speedup_ci']['low']:.2f} to {fast['speedup_ci']['high']:.2f})"
    )
