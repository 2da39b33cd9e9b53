"""A stage's peak memory does not grow with the utterances that it goes through."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from src.data import manifest
from tests.workspace import ROOT, SMALL, run_all, workspace

MANY = 2000
MOST = 150  # MB more; as float32, the audio alone would be over 250


def peak(folder, stage):
    """Peak resident memory of a stage, in MB."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"src.{stage}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1e3


@pytest.mark.slow
def test_the_search_over_many_utterances_takes_no_more_memory_than_over_few(tmp_path):
    short = {**SMALL["qat_search"], "n_trials": 1, "final_steps": 2}
    folder = workspace(tmp_path, {**SMALL, "qat_search": short})
    run_all(folder, "sample_data", "baseline")
    few = peak(folder, "qat_search")
    rows = manifest.read(folder / manifest.PATH)
    heard = manifest.select(rows, "finetune")
    copies = -(-MANY // len(heard))
    more = [replace(row, utt_id=f"{row.utt_id}~{copy}") for row in heard for copy in range(1, copies)]
    assert len(heard) + len(more) >= MANY and sum(row.seconds for row in more) * 64_000 / 1e6 > 250
    manifest.write(rows + more, folder / manifest.PATH)
    many = peak(folder, "qat_search")
    print(f"{few:.0f} MB, {many:.0f} MB with {len(heard) + len(more)} utterances to train on")
    assert many < few + MOST
