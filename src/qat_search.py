"""Stage `qat_search`: quantisation-aware fine-tuning under an Optuna search, and what the best trial brings."""
import torch

from src import params
from src.cost import latency, onnx_macs
from src.encoder import load
from src.encoder.export import export_onnx
from src.errors import InputError, reported
from src.evaluate import accuracy
from src.files import write_csv, write_json
from src.quantize import ptq, qat, search
from src.speech import manifest
from src.speech.audio import load_audio

MODEL = "models/qat.onnx"
METRICS, LATENCY, TRIALS = "metrics/qat_search.json", "metrics/qat_search_latency.json", "metrics/trials.csv"
# Not an output of the stage: DVC deletes those before it runs, and an interrupted search must survive.
STUDIES = ".optuna"


def main():
    config = params.load()
    rows = manifest.read()
    ranges = ptq.read_ranges()
    front_end, network = load.plain(config.encoder.source, config.encoder.revision)
    task = search.Task(
        student=ptq.prepare(network, config.ptq.observer, ptq.weight_bits(config.quantize)),
        ranges=ranges,
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
    timings = latency.against_fp32("qat", MODEL, config.profile, config.seed)
    write_json(LATENCY, timings)
    search.clear(STUDIES)
    print(f"qat: {accuracy.summary(metrics)}; best trial {result.best['trial'] + 1} of {len(result.trials)}")


def _speech(rows, split):
    """The waveforms and speakers of a split."""
    chosen = manifest.needed(rows, split)
    return [load_audio(row) for row in chosen], [row.speaker for row in chosen]


def _device(wanted):
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("params.yaml: device: cuda, but torch finds no CUDA device here; allowed: auto, cpu")
    return "cuda" if available and wanted != "cpu" else "cpu"


if __name__ == "__main__":
    with reported():
        main()
