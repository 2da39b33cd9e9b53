"""Stage `profile`: what the encoder costs, in multiply-accumulates, parameters, bytes and milliseconds."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.profile", alone=True)

import os
from pathlib import Path

import torch

from src.common import layout, params
from src.common.files import write_csv, write_json
from src.cost import latency, macs, onnx_macs
from src.encoder import load, networks
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError, count

# What a person compares between runs, and its decimals.
HEADLINE = {"gmacs": 4, "gflops": 4, "params_million": 2, "size_mb": 2}


def main() -> None:
    config = params.load()
    section = config.profile
    if not Path(latency.FP32).is_file():
        raise InputError(f"{latency.FP32}: no such file; run the stage baseline")
    classifier = load.load(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    layers, costs = _costs(classifier, section.seconds)
    models = {"speechbrain": latency.speechbrain(classifier), "fp32": latency.onnx_file(latency.FP32, section.threads)}
    timings = latency.measure(models, section.seconds, section.rounds, section.threads, config.seed)
    write_csv(layout.table("macs"), macs.COLUMNS, macs.rows(layers))
    write_json(layout.details("profile"), costs)
    write_json(layout.metrics("profile"), {key: round(costs[key], digits) for key, digits in HEADLINE.items()})
    write_json(layout.latency("fp32"), timings)
    _summarise(costs, timings)


def _costs(classifier, seconds):
    """The layers of SpeechBrain's encoder, and what it and the file made from it cost."""
    with torch.no_grad():
        features = classifier.mods["compute_features"](torch.zeros(1, round(seconds * SAMPLE_RATE)))
    network = classifier.mods["embedding_model"]
    layers = macs.count(network, features)
    total = sum(layer.macs for layer in layers)
    file = onnx_macs.cost(latency.FP32, seconds)
    return layers, {
        "network": networks.kind(network).title,
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


def _summarise(costs, timings):
    slow, fast = (timings["models"][name] for name in ("speechbrain", "fp32"))
    macs = f"{costs['gmacs']:.4f} GMACs = {costs['gflops']:.4f} GFLOPs for {costs['seconds']:g} s"
    print(f"encoder: {macs}, {costs['params_million']:.2f} M parameters, checkpoint {costs['checkpoint_mb']:.1f} MB")
    macs = f"{costs['rewritten_gmacs']:.4f} GMACs and {costs['front_end_gmacs']:.4f} in the front end"
    print(f"{latency.FP32}: {macs}, {costs['size_mb']:.1f} MB")
    times = f"SpeechBrain {slow['median_ms']:.1f} ms, {latency.FP32} {fast['median_ms']:.1f} ms"
    speed = f"{fast['speedup']:.2f} times as fast ({fast['speedup_ci']['low']:.2f} to {fast['speedup_ci']['high']:.2f})"
    print(f"latency on {count(timings['threads'], 'thread')}: {times}, {speed}")
