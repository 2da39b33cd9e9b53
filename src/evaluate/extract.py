"""Embeddings of manifest rows by an ONNX model."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from src.data.recordings import load_audio
from src.runtime.engine import embedding, session
from src.runtime.errors import AudioError, InputError

QUEUED = 256  # utterances handed to the threads at once: a pool keeps some memory for every one that waits


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
        try:
            return embedding(model, audio(row))
        except AudioError as error:
            raise InputError(f"{row.path}: {error}") from None

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = (part for start in range(0, len(rows), QUEUED) for part in pool.map(one, rows[start : start + QUEUED]))
        shown = tqdm(found, "embeddings", len(rows), unit="utterance", disable=None)
        return np.fromiter(shown, (np.float32, model.get_outputs()[0].shape[1]), len(rows))
