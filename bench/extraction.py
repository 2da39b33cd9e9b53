"""Extraction of a whole folder: utterances a second, real-time factor and peak memory.

    python -m bench.extraction MODEL WORKERS UTTERANCES

extracts in a process of its own, for peak memory is that of a process, and prints JSON.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from src.data import manifest
from src.evaluate import extract
from src.runtime import engine
from src.runtime.errors import InputError


def measure(model: str, workers: int, utterances: int) -> dict:
    """{model, workers, utterances, seconds, utterances_per_second, real_time_factor, peak_mb} of one run.

    model: an ONNX file; the utterances are those of the manifest, over and over where more are asked for. The
    time is that of reading, decoding and computing, without starting Python; real_time_factor is it divided
    by the length of the audio. peak_mb, 10^6 bytes, is of the whole process, None where the system does not
    tell. Raises InputError when the run fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.extraction", model, str(workers), str(utterances)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise InputError(f"extraction with {model} failed, exit status {done.returncode}")
    return json.loads(done.stdout)


def _extract(model, workers, utterances):
    rows = list(itertools.islice(itertools.cycle(manifest.read()), utterances))
    session = engine.session(model)
    start = time.perf_counter()
    extract.embed(session, rows, workers)
    seconds = time.perf_counter() - start
    return {
        "model": os.path.basename(model),
        "workers": workers,
        "utterances": utterances,
        "seconds": seconds,
        "utterances_per_second": utterances / seconds,
        "real_time_factor": seconds / sum(row.seconds for row in rows),
        "peak_mb": peak_mb(),
    }


def peak_mb():
    """Largest resident memory so far, MB. Linux keeps it; getrusage would count the parent's from before exec."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(json.dumps(_extract(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
