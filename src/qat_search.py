"""Stage `qat_search`: quantisation-aware fine-tuning under an Optuna search, and what the best trial brings."""
import json
from pathlib import Path

import torch

from src import params
from src.cost import latency, onnx_macs
from src.encoder import load
from src.encoder.export import export_onnx
from src.encoder.frontend import FrontEnd
from src.encoder.rewrite import rewrite
from src.errors import InputError, reported
from src.evaluate import accuracy
from src.files import write_csv, write_json
from src.quantize import ptq, qat, search
from src.speech import manifest
from src.speech.audio import load_audio

FP32, MODEL, RANGES = "models/fp32.onnx", "models/qat.onnx", "models/ptq_ranges.json"
METRICS, LATENCY, TRIALS = "metrics/qat_search.json", "metrics/qat_search_latency.json", "metrics/trials.csv"
# Not an output of the stage: DVC deletes those before it runs, and an interrupted search must survive.
STUDIES = ".optuna"


def main():
    config = params.load()
    rows = manifest.read()
    classifier = load.load(config.encoder.source, config.encoder.revision)
    front_end = FrontEnd(classifier.mods["compute_features"]).eval()
    network = rewrite(classifier.mods["embedding_model"])
    prepared = ptq.prepare(network, config.ptq.observer)
    task = search.Task(
        student=prepared,
        ranges=json.loads(Path(RANGES).read_text(encoding="utf-8")),
        teacher=network.requires_grad_(False),
        front_end=front_end,
        finetune=_speech(rows, "finetune"),
        validation=_speech(rows, "validation"),
        device=_device(config.device),
        seed=config.seed,
    )
    result = search.run(task, config.qat_search, STUDIES)
    student = search.student(task, result.state).cpu()
    export_onnx(torch.nn.Sequential(front_end.cpu(), ptq.convert(student)), MODEL)
    metrics = accuracy.evaluate(MODEL, "qat", rows, config, reference="fp32")
    cost = onnx_macs.cost(MODEL, config.profile.seconds)
    write_csv(TRIALS, list(result.trials[0]), result.trials)
    write_json(METRICS, {
        **metrics, **cost,
        "n_trials": len(result.trials),
        "best": result.best,
        "objective_untrained": result.before,
        "objective_fp32": result.reference,
    })
    timings = latency.measure(
        {name: latency.onnx_file(path, config.profile.threads) for name, path in (("fp32", FP32), ("qat", MODEL))},
        config.profile.seconds, config.profile.rounds, config.profile.threads, config.seed,
    )
    write_json(LATENCY, timings)
    search.clear(STUDIES)
    print(f"qat: {accuracy.summary(metrics)}; best trial {result.best['trial'] + 1} of {len(result.trials)}")


def _speech(rows, split):
    """The waveforms and speakers of a split."""
    chosen = manifest.select(rows, split)
    if not chosen:
        raise InputError(f"data/manifest.csv: the split {split} is empty")
    return [load_audio(row) for row in chosen], [row.speaker for row in chosen]


def _device(wanted):
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("params.yaml: device: cuda, but torch finds no CUDA device here; allowed: auto, cpu")
    return "cuda" if available and wanted != "cpu" else "cpu"


if __name__ == "__main__":
    with reported():
        main()
