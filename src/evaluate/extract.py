"""Embeddings of utterances by an ONNX model."""
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from tqdm import tqdm

from src.errors import InputError
from src.speech.audio import load_audio

QUEUED = 256  # utterances handed to the threads at once: a pool keeps some memory for every one that waits


def session(path):
    """An ONNX Runtime session on one CPU thread, so that results do not depend on how many run beside it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps a plan for every length that it has met
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no narrower public class
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a model that ONNX Runtime can load: {reason}") from None


def embed(model, rows, workers=None, audio=load_audio):
    """Embeddings of manifest rows: float32 [rows, dim], as the model gives them (not length-normalised).

    model: an ONNX file, or a `session`, with input `waveform` float32 [batch, samples] and output
    `embedding`. Utterances run one at a time at their full length, on `workers` threads (None: one for each
    CPU); the result does not depend on their number. Memory is that of the embeddings and of what the threads
    work on. audio: gives a row's waveform, float32 [n]. Raises InputError when a file cannot be read or an
    embedding is zero or not finite.
    """
    if not hasattr(model, "run"):
        model = session(model)

    def one(row):
        embedding = model.run(["embedding"], {"waveform": audio(row)[None]})[0][0]
        if not np.isfinite(embedding).all() or not embedding.any():
            raise InputError(f"{row.path}: the embedding is zero, or not finite")
        return embedding

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = (part for start in range(0, len(rows), QUEUED) for part in pool.map(one, rows[start:start + QUEUED]))
        shown = tqdm(found, "embeddings", len(rows), unit="utterance", disable=None)
        return np.fromiter(shown, (np.float32, model.get_outputs()[0].shape[1]), len(rows))
