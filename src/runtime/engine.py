"""An ONNX model in ONNX Runtime: a waveform to its embedding."""

import base64
import functools
import os

import numpy as np
import onnxruntime

from src.runtime.errors import AudioError, InputError, one_line

INPUT, OUTPUT = "waveform", "embedding"
# What a file's metadata says of its integer weights: portable (the same sums on every processor) or full (8 bits).
WEIGHTS, PORTABLE, FULL = "weights", "portable", "full"
# An ONNX model that multiplies matrices a (uint8) and b (int8) of any shape: MatMulInteger, opset 10.
_PRODUCT = base64.b64decode(
    "CAUSADo+ChgKAWEKAWISAWMiDU1hdE11bEludGVnZXISAXBaCQoBYRIECgIIAloJCgFiEgQKAggDYgkKAWMSBAoCCAZCBAoAEAo="
)


def session(path: str | os.PathLike) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one CPU thread, so that results do not depend on how many run beside it.

    Raises InputError when the file is not a model, not one from INPUT to OUTPUT, or has FULL weights where the engine
    `saturates`.
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
    if weights(model) == FULL and saturates():
        raise InputError(
            f"{path}: has 8-bit weights, and this processor adds up their products in 16 bits: scores and decisions would "
            "be others; use a processor with VNNI or Arm's, or a model made with quantize.weights: portable"
        )
    return model


def weights(model: onnxruntime.InferenceSession) -> str | None:
    """PORTABLE or FULL, as the file says; None for a file without integer weights."""
    return model.get_modelmeta().custom_metadata_map.get(WEIGHTS)


@functools.cache
def saturates() -> bool:
    """Whether the engine, on this processor, stops sums of two products of uint8 and int8 at 32,767.

    It is tried. x86 without VNNI has one instruction for such products, vpmaddubsw, which adds two of them in 16 bits:
    two weights of 127 with activations of 130 are over it, two of 63 with activations of 255 are not.
    """
    left, right = np.full((1, 2), 255, np.uint8), np.full((2, 1), 127, np.int8)
    return integer_product(left, right).item() != 2 * 255 * 127


def integer_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The product of matrices uint8 [..., m, k] and int8 [..., k, n] on one thread: int32 [..., m, n]. Of values up to 127 on
    either side it is exact on every processor (see `saturates`)."""
    return np.asarray(_product().run(None, {"a": left, "b": right})[0])


@functools.cache
def _product():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])


def embedding(model: onnxruntime.InferenceSession, waveform: np.ndarray, window: int | None = None) -> np.ndarray:
    """The embedding float32 [dim] of a waveform float32 [n] by a `session`, not length-normalised.

    window: samples that the model gets at once at most; the embedding of a longer waveform is the mean over as few equal
    parts as that allows (None: it gets all at once). Raises AudioError when it is zero or not finite.
    """
    parts = np.array_split(waveform, -(-len(waveform) // window) if window else 1)
    values = np.mean([np.asarray(model.run([OUTPUT], {INPUT: part[None]})[0])[0] for part in parts], axis=0)
    if not np.isfinite(values).all() or not values.any():
        raise AudioError("the embedding is zero, or not finite")
    return values
