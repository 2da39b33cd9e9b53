"""Where the time of a model goes in ONNX Runtime, by its own profiler."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP = 5


def node_times(
    model: Path | str | bytes, inputs: Mapping[str, np.ndarray], rounds: int
) -> dict[tuple[str, str], float]:
    """{(operator, name of the node): milliseconds}, in the order in which they run; medians over the rounds, on one
    thread. model: a file, or what is in one."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling, options.profile_file_prefix = True, os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP + rounds):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["args"]["op_name"], event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    return {key: float(np.median(times[WARM_UP:])) for key, times in taken.items()}
