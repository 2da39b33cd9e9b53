"""An ONNX model in ONNX Runtime: a waveform to its embedding."""

import os

import numpy as np
import onnxruntime

from src.runtime.errors import AudioError, InputError, one_line

INPUT, OUTPUT = "waveform", "embedding"


def session(path: str | os.PathLike) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one CPU thread, so that results do not depend on how many run beside it.

    Raises InputError when the file is not a model, or not one from INPUT to OUTPUT.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised; it would be printed too
    options.enable_mem_pattern = False  # it keeps a plan for every length that it has met
    try:
        model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no narrower public class
        raise InputError(f"{path}: not a model that ONNX Runtime can load: {one_line(error)}") from None
    inputs, outputs = ([node.name for node in side] for side in (model.get_inputs(), model.get_outputs()))
    if inputs != [INPUT] or OUTPUT not in outputs:
        raise InputError(
            f"{path}: not a speaker encoder: it makes {', '.join(outputs)} of {', '.join(inputs)}, "
            f"not {OUTPUT} of {INPUT}"
        )
    return model


def embedding(model: onnxruntime.InferenceSession, waveform: np.ndarray) -> np.ndarray:
    """The embedding float32 [dim] of a waveform float32 [n] by a `session`, not length-normalised.

    Raises AudioError when it is zero or not finite.
    """
    values = np.asarray(model.run([OUTPUT], {INPUT: waveform[None]})[0])[0]
    if not np.isfinite(values).all() or not values.any():
        raise AudioError("the embedding is zero, or not finite")
    return values
