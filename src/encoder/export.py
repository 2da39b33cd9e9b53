"""A waveform encoder as one self-contained ONNX file."""

import contextlib
import logging
import warnings
from pathlib import Path

import onnx
import onnxscript.optimizer
import torch

from src.common.files import atomic_write
from src.encoder import onnx_passes
from src.runtime import engine
from src.runtime.audio import SAMPLE_RATE

# Constants of more elements than this (the front end's matrices) are left for the engine to compute when it
# loads the file; stored, they would be most of a small encoder.
LARGEST_FOLDED = 1024
OPSET = 21  # the first that casts INT4


def export_onnx(module: torch.nn.Module, path: Path | str, weights: str | None = None) -> None:
    """Write `module`, waveform [batch, samples] -> embedding [batch, dim], to `path` as ONNX.

    Input `waveform` and output `embedding` are float32, batch and samples dynamic; the file holds its own
    weights, and the same module gives the same bytes. `module`, on the CPU, is a FrontEnd followed by an
    encoder: a plain network, or what PT2E converts it to. weights: what its metadata say of integer weights, PORTABLE or
    FULL (see `src.runtime.engine`). Checked before it is written.
    """
    example = torch.zeros(2, SAMPLE_RATE)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=[engine.INPUT],
            output_names=[engine.OUTPUT],
            dynamic_shapes=({0: "batch", 1: "samples"},),
            opset_version=OPSET,
            external_data=False,
            optimize=False,
            verbose=False,
        )
        assert program is not None  # what the exporter gives with `dynamo`
        onnxscript.optimizer.optimize_ir(program.model, output_size_limit=LARGEST_FOLDED)
        onnx_passes.rewrite(program.model)
        model = program.model_proto
    _strip(model)
    if weights:
        onnx.helper.set_model_props(model, {engine.WEIGHTS: weights})
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(path) as beside:
        beside.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model):
    """Drop what no engine needs: stack traces, and shapes that every engine infers for itself."""
    graph = model.graph
    graph.ClearField("value_info")
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextlib.contextmanager
def _quiet():
    """Silence the exporter's notes about what is not installed and what will be deprecated."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
