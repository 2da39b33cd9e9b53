"""An ONNX model in ONNX Runtime: a waveform to its embedding."""

import numpy as np
import onnxruntime

from src.runtime.errors import AudioError, InputError

INPUT, OUTPUT = "waveform", "embedding"


def session(path):
    """An ONNX Runtime session on one CPU thread, so that results do not depend on how many run beside it.

    Raises InputError when the file is not a model, or not one from INPUT to OUTPUT.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps a plan for every length that it has met
    try:
        model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no narrower public class
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a model that ONNX Runtime can load: {reason}") from None
    inputs, outputs = ([each.name for each in side] for side in (model.get_inputs(), model.get_outputs()))
    if inputs != [INPUT] or OUTPUT not in outputs:
        raise InputError(
            f"{path}: not a speaker encoder: it makes {', '.join(outputs)} of {', '.join(inputs)}, "
            f"not {OUTPUT} of {INPUT}"
        )
    return model


def embedding(model, waveform):
    """The embedding float32 [dim] of a waveform float32 [n] by a `session`, not length-normalised.

    Raises AudioError when it is zero or not finite.
    """
    found = model.run([OUTPUT], {INPUT: waveform[None]})[0][0]
    if not np.isfinite(found).all() or not found.any():
        raise AudioError("the embedding is zero, or not finite")
    return found
