"""Where the time of a model goes in ONNX Runtime, by its own profiler."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from src.cost import latency


def node_times(
    model: Path | str | bytes, inputs: Mapping[str, np.ndarray], rounds: int
) -> dict[tuple[str, str], float]:
    """{(operator, name of the node): milliseconds}, in the order in which they run; medians, on one thread, over the
    calls of so many turns. model: a file, or what is in one.

    The profiler's own time, as much at each node, is taken off: they add up to a run without it.
    """
    plain = _session(model)
    with tempfile.TemporaryDirectory() as folder:
        profiled = _session(model, enable_profiling=True, profile_file_prefix=os.path.join(folder, "profile"))
        runs = {"plain": lambda: plain.run(None, dict(inputs)), "profiled": lambda: profiled.run(None, dict(inputs))}
        alone = 1e3 * np.median(latency.interleave(runs, rounds)["plain"].last)
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    taken = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["args"]["op_name"], event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    found = {key: float(np.median(times)) for key, times in taken.items()}
    own = max(0.0, (sum(found.values()) - alone) / len(found))
    return {key: max(0.0, each - own) for key, each in found.items()}


def _session(model, **profiling):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in profiling.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
