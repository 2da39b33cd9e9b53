"""Stage `ptq`: the encoder in INT8 by static post-training quantisation, its accuracy, cost and time."""
import torch

from src import params
from src.cost import latency, onnx_macs
from src.encoder import load
from src.encoder.export import export_onnx
from src.encoder.frontend import FrontEnd
from src.encoder.rewrite import rewrite
from src.errors import InputError, reported
from src.evaluate import accuracy
from src.files import write_json
from src.quantize import ptq
from src.speech import manifest
from src.speech.audio import load_audio

FP32, MODEL, RANGES = "models/fp32.onnx", "models/ptq.onnx", "models/ptq_ranges.json"
METRICS, LATENCY = "metrics/ptq.json", "metrics/ptq_latency.json"


def main():
    config = params.load()
    rows = manifest.read()
    classifier = load.load(config.encoder.source, config.encoder.revision)
    front_end = FrontEnd(classifier.mods["compute_features"]).eval()
    prepared = ptq.prepare(rewrite(classifier.mods["embedding_model"]), config.ptq.observer)
    chosen = _spread(manifest.select(rows, "calibration"), config.ptq.utterances)
    ptq.calibrate(prepared, [front_end(torch.from_numpy(load_audio(row))[None]) for row in chosen])
    write_json(RANGES, ptq.activation_ranges(prepared))
    export_onnx(torch.nn.Sequential(front_end, ptq.convert(prepared)), MODEL)
    metrics = accuracy.evaluate(MODEL, "ptq", rows, config, reference="fp32")
    cost = onnx_macs.cost(MODEL, config.profile.seconds)
    write_json(METRICS, {**metrics, **cost, "calibration_utterances": len(chosen)})
    timings = latency.measure(
        {name: latency.onnx_file(path, config.profile.threads) for name, path in (("fp32", FP32), ("ptq", MODEL))},
        config.profile.seconds, config.profile.rounds, config.profile.threads, config.seed,
    )
    write_json(LATENCY, timings)
    print(f"ptq: {accuracy.summary(metrics)}; {cost['int8_mac_share']:.2%} of the multiplications in INT8, "
          f"{cost['size_mb']:.2f} MB, {timings['models']['ptq']['speedup']:.2f} times as fast as fp32.onnx")


def _spread(rows, count):
    """At most `count` rows at even distances, so that every speaker has a part."""
    if not rows:
        raise InputError("data/manifest.csv: the split calibration is empty")
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


if __name__ == "__main__":
    with reported():
        main()
