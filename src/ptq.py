"""Stage `ptq`: the encoder in INT8 by static post-training quantisation, its accuracy, cost and time."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.ptq", alone=True)

import torch

from src.common import layout, params
from src.common.files import write_json
from src.cost import latency, onnx_macs
from src.data import manifest
from src.encoder.export import export_onnx
from src.evaluate import accuracy
from src.evaluate.evaluation import evaluate
from src.quantize import ptq

MODEL = layout.model("ptq")


def main() -> None:
    config = params.load()
    torch.set_num_threads(config.threads)
    rows = manifest.read()
    front_end, features, prepared = ptq.prepare_encoder(config, rows)
    ptq.calibrate_activations(prepared, features)
    write_json(ptq.RANGES, ptq.activation_ranges(prepared))
    export_onnx(torch.nn.Sequential(front_end, ptq.convert(prepared)), MODEL, config.quantize.weights)
    summary = evaluate(MODEL, "ptq", rows, config, reference="fp32")
    cost = onnx_macs.cost(MODEL, config.profile.seconds)
    details = {
        **summary,
        **cost,
        "calibration_utterances": len(features),
        "weight_bits": ptq.weight_bits(config.quantize),
    }
    write_json(layout.details("ptq"), details)
    write_json(layout.metrics("ptq"), accuracy.headline(summary) | onnx_macs.headline(cost))
    timings = latency.against_fp32("ptq", MODEL, config.profile, config.seed)
    write_json(layout.latency("ptq"), timings)
    print(
        f"ptq: {accuracy.line(summary)}; {cost['int8_mac_share']:.2%} of the multiplications in INT8, "
        f"{cost['size_mb']:.2f} MB, {timings['models']['ptq']['speedup']:.2f} times as fast as fp32.onnx"
    )
