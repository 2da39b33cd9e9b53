"""What is timed: an encoder on an engine, from a waveform to an embedding."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openvino

from bench import webassembly
from src.cost import latency
from src.runtime.errors import InputError

REFERENCE = "speechbrain"  # what speed-ups and cosines are relative to
STAGES = {"fp32": "baseline", "ptq": "ptq", "qat": "qat_search"}
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "webassembly": "onnxruntime-web, one thread"}
OURS = tuple(f"{name}-{engine}" for name in STAGES for engine in ENGINES)


@dataclass(frozen=True)
class Model:
    """`on`: number of threads -> callable, waveform float32 [batch, samples] -> embedding float32 [batch, dim]."""

    title: str
    setting: str  # how it was made, for people
    size_mb: float  # 10^6 bytes that its weights take on disk
    on: Callable[[int], latency.Encoder]


def ours(name: str) -> Model:
    """One of OURS, from models/. Raises InputError when the pipeline has not made its file, UnavailableError when Node is
    not installed."""
    kind, engine = name.split("-")
    path = Path(f"models/{kind}.onnx")
    if not path.is_file():
        raise InputError(f"{path}: no such file; run the stage {STAGES[kind]}, or dvc repro")
    if engine == "webassembly":
        webassembly.program("node")
    on = {
        "onnxruntime": latency.onnx_file,
        "openvino": openvino_file,
        "webassembly": lambda path, _: webassembly.encoder(path),
    }[engine]
    return Model(
        f"{kind}.onnx, {ENGINES[engine]}",
        "this project's file, front end inside",
        os.path.getsize(path) / 1e6,
        lambda threads: on(path, threads),
    )


def openvino_file(model: Path | str | openvino.Model, threads: int) -> latency.Encoder:
    """The callable of a file, or of a model in memory, in OpenVINO on the CPU; its input is the callable's.

    What is float stays float32: on processors with bfloat16 OpenVINO would round it to that by itself, and an
    `fp32` model would be none. Threads are free to move, as every other engine's are: pinned ones would wait
    for whatever else runs on their core.
    """
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        },
    )
    return lambda values: compiled([values])[0].copy()  # the engine writes its next output over this one
