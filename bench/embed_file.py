"""Embeddings with ONNX Runtime and numpy alone, for a Python on another processor: embed_file.py MODEL IN.npy OUT.npy

IN: float32 [utterances, samples]; OUT: float32 [utterances, dim].
"""

import sys

import numpy as np
import onnxruntime

if __name__ == "__main__":
    model, waveforms, embeddings = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.save(
        embeddings,
        np.concatenate([session.run(["embedding"], {"waveform": one[None]})[0] for one in np.load(waveforms)]),
    )
