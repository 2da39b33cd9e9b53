"""Where the time of a model goes in ONNX Runtime, operator by operator: python -m bench.op_profile models/ptq.onnx

One thread, batch 1, 3 s. Each operator's time is the median over the runs of what ONNX Runtime's own profiler says, less
what the profiler itself takes. Beside the convolutions is the rate at which the same kernel multiplies on its own: a lone 1x1
convolution of the size of the model's largest, so that what is lost to the shapes of the others can be told from the rest.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.op_profile")

from collections import defaultdict

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from pydantic import Field

from src.common.schema import Section
from src.cost import latency, onnx_macs
from src.cost.cpu import cpu
from src.cost.node_times import node_times
from src.runtime import engine
from src.runtime.audio import SAMPLE_RATE
from src.search.factorise import Shape
from src.search.price import convolution_times

SECONDS = 3
KINDS = {
    "convolutions": {"QLinearConv", "Conv", "FusedConv", "NhwcFusedConv"},
    "products": {"MatMul", "Gemm", "FusedGemm", "QGemm", "MatMulIntegerToFloat", "FusedMatMul"},
    "to and from integers": {"QuantizeLinear", "DequantizeLinear"},
    "moving values": {
        "Transpose",
        "Concat",
        "QLinearConcat",
        "Split",
        "Slice",
        "Pad",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "ReorderInput",
        "ReorderOutput",
    },
    "sums and means": {"ReduceSum", "ReduceMean", "ReduceMax", "QLinearGlobalAveragePool", "GlobalAveragePool"},
}


class Options(Section):
    model: str = Field(description="an ONNX file")
    rounds: int = Field(50, ge=1)


def main(model, rounds):
    waveform = latency.noise(SECONDS * SAMPLE_RATE)
    found = node_times(model, {engine.INPUT: waveform}, rounds)
    layers = [layer for layer in onnx_macs.count(model, waveform, optimised=True) if not layer.front_end]
    gmacs = sum(layer.macs for layer in layers) / 1e9
    total = sum(found.values())
    kinds = defaultdict(lambda: [0.0, 0])
    for (kind, _), time in found.items():
        group = next((name for name, members in KINDS.items() if kind in members), "elementwise and the rest")
        kinds[group][0] += time
        kinds[group][1] += 1
    print(
        f"{model}: {gmacs:.3f} GMACs, {total:.2f} ms in {len(found)} nodes; {cpu()['model']}, "
        f"{', '.join(cpu()['extensions'])}; ONNX Runtime {onnxruntime.__version__}\n"
    )
    print("| what | nodes | ms | share |\n| --- | ---: | ---: | ---: |")
    for name, (time, nodes) in sorted(kinds.items(), key=lambda item: -item[1][0]):
        print(f"| {name} | {nodes} | {time:.2f} | {100 * time / total:.1f} % |")
    integer = sum(time for (kind, _), time in found.items() if kind == "QLinearConv")
    if integer:
        convolved = sum(layer.macs for layer in layers if layer.op == "QLinearConv") / 1e9
        inputs, outputs, frames = _largest(model, waveform)
        (alone,) = convolution_times([Shape(inputs, outputs, 1, frames)], rounds)
        rate = inputs * outputs * frames / 1e9 / (alone / 1e3)
        print(
            f"\nInteger convolutions: {convolved:.3f} GMACs in {integer:.2f} ms, {convolved / integer * 1e3:.0f} "
            f"GMACs a second. A lone 1x1 convolution of {inputs} to {outputs} channels reaches {rate:.0f}: at that rate "
            f"they would take {1e3 * convolved / rate:.2f} ms."
        )
    print("\nThe longest:\n\n| operator | node | ms |\n| --- | --- | ---: |")
    for (kind, name), time in sorted(found.items(), key=lambda item: -item[1])[:12]:
        print(f"| {kind} | {name.removesuffix('_kernel_time')} | {time:.2f} |")


def _largest(path, waveform):
    """(inputs, outputs, frames) of the 1x1 convolution with the most multiplications."""
    graph = onnx.load(path).graph
    weights = [
        tuple(tensor.dims)
        for tensor in graph.initializer
        if tensor.data_type in (TensorProto.INT8, TensorProto.INT4) and len(tensor.dims) == 4
    ]
    outputs, inputs = max((dims[:2] for dims in weights if dims[2:] == (1, 1)), key=np.prod)
    largest = max(layer.macs for layer in onnx_macs.count(path, waveform) if not layer.front_end)
    return inputs, outputs, round(largest / inputs / outputs)
