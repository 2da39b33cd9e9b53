"""Whether open-set identification keeps the FPIR that it is asked for, on speakers that its threshold has not seen.

    python -m bench.identification                       # the pipeline's validation speakers for its test speakers
    python -m bench.identification --folder FOLDER       # halves of a folder <speaker>/**, each for the other, 20 times

Prints FPIR and FNIR at the threshold that `src.identify` takes, in galleries of 10 and of all speakers but one, with 95 %
intervals over resampled speakers (of a folder: the mean over splits, and where 90 % of them lie).
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.identification")

from pathlib import Path

import numpy as np
from pydantic import Field

from src.common.schema import Section
from src.data import manifest
from src.data.manifest import Row
from src.evaluate import bootstrap, extract, nontargets, open_set, scores
from src.evaluate.trials import all_pairs
from src.runtime import engine
from src.runtime.audio import MAX_SECONDS, waveform
from src.sources.folder import named_files

SPLITS = 20


class Options(Section):
    folder: Path | None = Field(None, description="a folder of speakers in place of the pipeline's splits")
    model: Path = Field(Path("models/qat.onnx"))
    fpir: float = Field(0.01, gt=0, lt=0.5)


def main(model=Path("models/qat.onnx"), fpir=0.01, folder=None):
    session = engine.session(model)
    if not folder:
        rows = manifest.read()
        seen, unseen = (manifest.needed(rows, split) for split in ("validation", "test"))
        known, tested = (extract.embed(session, part) for part in (seen, unseen))
        for size, threshold, beyond, *rates in measured((seen, known), (unseen, tested), fpir):
            texts = [f"{100 * rate:.2f} % [{100 * low:.2f}, {100 * high:.2f}]" for rate, (low, high) in rates]
            print(
                f"{size} speakers: threshold {threshold:.4f}{' (extrapolated)' * beyond}, FPIR {texts[0]}, FNIR {texts[1]}"
            )
        return
    _, files = named_files(folder)
    rows = [Row(name, name.split("/")[0], "", path, 0, 0) for name, path in sorted(files.items()) if "/" in name]
    embeddings = extract.embed(session, rows, audio=lambda row: waveform(row.path, MAX_SECONDS)[0])
    speakers = sorted({row.speaker for row in rows})
    rng, found = np.random.default_rng(0), {}
    for _ in range(SPLITS):
        order = rng.permutation(speakers)
        halves = [set(order[: len(order) // 2]), set(order[len(order) // 2 :])]
        sides = [[number for number, row in enumerate(rows) if row.speaker in half] for half in halves]
        parts = [([rows[number] for number in side], embeddings[side]) for side in sides]
        for known, tested in (parts, parts[::-1]):
            for size, threshold, _, (fpir_, _), (fnir, _) in measured(known, tested, fpir, resamples=2):
                found.setdefault(size, []).append((threshold, fpir_, fnir))
    for size, values in found.items():
        middle, (low, high) = np.mean(values, axis=0), np.quantile(values, (0.05, 0.95), axis=0)
        texts = [f"{100 * middle[i]:.2f} % [{100 * low[i]:.2f}, {100 * high[i]:.2f}]" for i in (1, 2)]
        print(f"{size} speakers: threshold {middle[0]:.4f}, FPIR {texts[0]}, FNIR {texts[1]}, {len(values)} splits")


def measured(known, tested, fpir, resamples=1000):
    """(gallery's size, threshold, whether it is extrapolated, (FPIR, its interval), (FNIR, its interval)) of each size.

    known: rows and embeddings of the speakers that the threshold is from; tested: of those that are searched for."""
    tail = nontargets.measure(known[1], known[0])
    pairs = all_pairs(tested[0], 1)
    grid = scores.cosine(tested[1], pairs).reshape(len(pairs.enrol_names), -1)
    mates = (pairs.enrol_speakers[:, None] == pairs.test_speakers).argmax(axis=0)
    searched = open_set.searches(grid, mates)
    counts = bootstrap.resamples(len(grid), resamples, 0)
    for size in (10, len(grid) - 1):
        threshold = tail.threshold(fpir, size)
        rates = []
        for wrong in open_set.at_threshold(searched, size, threshold):
            values = bootstrap.identification(wrong, mates, counts)
            interval = bootstrap.rate_interval(wrong.mean(), values, counts) if resamples > 2 else None
            if interval and not wrong.any():
                interval = 0.0, 1 - 0.025 ** (1 / len(grid))  # as if all probes of a speaker went together
            rates.append((wrong.mean(), interval))
        yield size, threshold, tail.beyond(fpir, size), *rates
