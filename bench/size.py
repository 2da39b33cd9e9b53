"""Metrics, intervals and report of a test of the size of VoxCeleb1-E, with made-up embeddings: time and peak memory.

    python -m bench.size [--speakers 1251] [--utterances 145160] [--trials 579818]

Needs the outputs of a pipeline run in the working directory: what the report says of costs and of the search is theirs.
Writes to a temporary folder. Each stage's part runs in a process of its own, as in the pipeline; all pairs, in the place of
the list, with --trials 0.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.size")

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pydantic import Field
from ruamel.yaml import YAML

from bench.extraction import peak_mb
from src.common import layout, params
from src.common.files import write_json
from src.common.schema import Section
from src.data import manifest
from src.data.manifest import Row
from src.evaluate.evaluation import evaluate

DIMENSIONS = 192
VALIDATION = 100  # speakers of this split, of 20 utterances each
NOISE = {"fp32": 0.0, layout.LOGMEL: 6.0, "ptq": 0.4, "qat": 0.6}  # added to an utterance's own embedding
STAGES = (("fp32", layout.LOGMEL), ("ptq",), ("qat",), ("report",))


class Options(Section):
    speakers: int = Field(1251, ge=8)
    utterances: int = Field(145_160, ge=100)
    trials: int = Field(579_818, ge=0, description="half of them targets; 0: all pairs")
    part: str = Field("", description="one stage's part alone, in the working directory")


def main(speakers, utterances, trials, part):
    if part:
        _part(part.split(","))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("metrics", "params.yaml"):
            (shutil.copytree if os.path.isdir(name) else shutil.copy)(name, Path(folder, name))
        os.symlink(os.path.abspath("models"), Path(folder, "models"))
        made = _data(Path(folder), speakers, utterances, trials)
        print(f"{speakers:,} speakers, {utterances:,} utterances, {made}")
        print(f"{'':<16}{'seconds':>10}{'CPU':>10}{'peak MB':>10}")
        parts = []
        for names in STAGES:
            parts.append(_measured(folder, ",".join(names)))
            print(f"{' and '.join(names):<16}" + "".join(f"{number:>10.1f}" for number in parts[-1]), flush=True)
        seconds, cpu, megabytes = zip(*parts, strict=True)
        print(f"{'all':<16}{sum(seconds):>10.1f}{sum(cpu):>10.1f}{max(megabytes):>10.1f}")
        path = layout.scores("ptq")
        print(f"{path}: {Path(folder, path).stat().st_size / 1e6:.0f} MB")


def _measured(folder, part):
    """(seconds, seconds of the processor, peak MB) of a part."""
    start, before = time.perf_counter(), _processor()
    done = subprocess.run(
        [sys.executable, "-m", "bench.size", "--part", part],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"error: the part {part} failed")
    return time.perf_counter() - start, _processor() - before, float(done.stdout.splitlines()[-1])


def _processor():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _part(names):
    if names == ["report"]:
        from src import report

        report.main()
    else:
        config, rows = params.load(), manifest.read()
        summaries = [
            evaluate(_model(name), name, rows, config, None if name in STAGES[0] else "fp32") for name in names
        ]
        path = layout.details(layout.STAGES[names[0]])
        before = YAML(typ="safe").load(path.read_text())
        log_mel = {layout.LOGMEL: summaries[1]} if len(names) > 1 else {}
        write_json(path, before | summaries[0] | log_mel)
    print(f"{peak_mb():.1f}")


def _model(name):
    """What makes up embeddings for rows: of the speaker, of the utterance, and NOISE of the model."""

    def embed(rows):
        numbers = {speaker: number for number, speaker in enumerate(sorted({row.speaker for row in rows}))}
        speakers = np.random.default_rng(0).normal(size=(len(numbers), DIMENSIONS)).astype(np.float32)
        values = 0.8 * speakers[[numbers[row.speaker] for row in rows]]
        values += 1.2 * np.random.default_rng(1).standard_normal(values.shape, dtype=np.float32)
        if NOISE[name]:
            noise = np.random.default_rng([2, len(name), ord(name[0])])
            values += NOISE[name] * noise.standard_normal(values.shape, dtype=np.float32)
        return values

    return embed


def _data(folder, speakers, utterances, trials):
    """Write the manifest, the list and params.yaml; a line about the trials."""
    counts = np.diff(np.linspace(0, utterances, speakers + 1).astype(int))
    rows = [
        Row(f"id{10001 + s}/{u % 20:011d}/{u // 20:05d}.wav", f"id{10001 + s}", "test", "", 8.0, 0, "fm"[s % 2])
        for s, count in enumerate(counts)
        for u in range(count)
    ]
    test = len(rows)
    rows += [
        Row(f"id{90000 + s}/v/{u:05d}.wav", f"id{90000 + s}", "validation", "", 8.0, 0)
        for s in range(VALIDATION)
        for u in range(20)
    ]
    (folder / "data").mkdir()
    manifest.write(rows, folder / manifest.PATH)
    config = YAML(typ="safe").load((folder / "params.yaml").read_text())
    if trials:
        rng, starts = np.random.default_rng(3), np.cumsum(counts) - counts
        first = rng.integers(0, test, trials)
        speaker = np.searchsorted(starts, first, side="right") - 1
        same = np.arange(trials) % 2 == 0
        second = np.where(same, starts[speaker] + rng.integers(0, counts[speaker]), rng.integers(0, test, trials))
        lines = (
            f"{int(rows[a].speaker == rows[b].speaker)} {rows[a].utt_id} {rows[b].utt_id}\n"
            for a, b in zip(first, second)
        )
        (folder / "list.txt").write_text("".join(lines))
        config["data"] |= {"source": "folder", "path": str(folder), "trials": "list.txt"}
    YAML().dump(config, folder / "params.yaml")
    return f"{trials:,} trials of a list" if trials else "all pairs"
