"""Verify a speaker: python -m src.verify enrol.wav [more enrolments] test.wav

Tells how alike the voices are (the cosine of their embeddings), what that says (a log-likelihood ratio), and whether
it is the same speaker, at the threshold that the evaluation found. Exit status, as that of cmp: 0 for the same
speaker, 1 for different ones, 2 where there is no decision. Needs onnxruntime, numpy and soundfile; soxr too for
audio that is not at 16 kHz.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from src.common.command import reported
from src.common.files import sha256
from src.runtime import calibration, engine
from src.runtime.audio import MAX_SECONDS, SAMPLE_RATE, waveform
from src.runtime.errors import AudioError, InputError
from src.runtime.scoring import mean_direction, normalised

MODEL = "models/qat.onnx"
SAME, DIFFERENT, UNDECIDED = 0, 1, 2
DECISIONS = {SAME: "same speaker", DIFFERENT: "different speakers", UNDECIDED: None}


def main():
    options = parser().parse_args()
    found, status = verify(options.enrol, options.test, options.model, options.threshold, options.max_seconds)
    print(json.dumps(found, ensure_ascii=False) if options.json else text(found))
    sys.exit(status)


def parser():
    made = argparse.ArgumentParser(prog="python -m src.verify", description=__doc__.partition("\n\n")[2])
    made.add_argument("enrol", nargs="+", help="recordings of the speaker, whose embeddings are averaged")
    made.add_argument("test", help="the recording in question")
    made.add_argument("--model", default=MODEL, help="an ONNX file (default: %(default)s)")
    made.add_argument(
        "--threshold",
        type=float,
        help="the lowest score of the same speaker (default: that of "
        "config.json beside the model, else of metrics/calibration/<model>.json)",
    )
    made.add_argument(
        "--max-seconds", type=float, default=MAX_SECONDS, help="what is longer is cut to this (default: %(default)g)"
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def verify(enrol, test, model, threshold=None, max_seconds=MAX_SECONDS):
    """(what is found, as in the JSON that is printed; the exit status).

    enrol: paths; test: a path; threshold: of the score, None for that of the evaluation. Raises InputError when the
    model or a recording cannot be used.
    """
    start = time.perf_counter()
    session = engine.session(model)
    loaded = time.perf_counter()
    embeddings, seconds = zip(*(_embedding(session, path, max_seconds) for path in (*enrol, test)))
    done = time.perf_counter()
    score = float(mean_direction(np.stack(embeddings[:-1])) @ normalised(embeddings[-1].astype(np.float64)))
    fitted, source = calibration_of(model)
    if threshold is not None:
        source = "--threshold"
    elif fitted:
        threshold = fitted.threshold_eer
    status = UNDECIDED if threshold is None else SAME if score >= threshold else DIFFERENT
    return {
        "score": round(score, 6),
        "threshold": threshold,
        "threshold_from": source,
        "log_likelihood_ratio": fitted and round(fitted.llrs(score), 4),
        "decision": DECISIONS[status],
        "model": str(model),
        "enrol": list(enrol),
        "test": test,
        "seconds": {
            "audio": round(sum(seconds), 3),
            "load": round(loaded - start, 4),
            "embed": round(done - loaded, 4),
        },
    }, status


def _embedding(session, path, max_seconds):
    try:
        samples = waveform(path, max_seconds)
        return engine.embedding(session, samples), len(samples) / SAMPLE_RATE
    except AudioError as error:
        raise InputError(f"{path}: {error}") from None


def calibration_of(model):
    """(the Calibration of a model, the file that has it); (None, why there is none) where there is none.

    config.json beside the model, as in models/release, has that of the file with the checksum it names; that of
    models/<name>.onnx is in metrics/calibration/<name>.json beside the folder models. Raises InputError when the file
    is damaged.
    """
    model = Path(model).absolute()
    release, run = model.with_name("config.json"), model.parents[1] / "metrics/calibration" / f"{model.stem}.json"
    if release.exists():
        found, path = calibration.read(release), release
        if json.loads(release.read_text(encoding="utf-8")).get("sha256") != sha256(model):
            return None, f"{release} is about another model"
    elif run.exists():
        found, path = calibration.read(run), run
    else:
        return None, f"neither {release} nor {run} is there"
    if found.normalisation != calibration.COSINE:
        return None, f"{path} is about scores after {found.normalisation}, which takes a cohort"
    return found, str(path)


def text(found):
    """What `verify` finds as lines to read."""
    taken = found["seconds"]
    lines = [("score", f"{found['score']:.4f}")]
    if found["threshold"] is None:
        lines.append(
            ("decision", f"none: no threshold is known ({found['threshold_from']}); give one with --threshold")
        )
    else:
        lines += [
            ("threshold", f"{found['threshold']:.4f} ({found['threshold_from']})"),
            ("decision", found["decision"]),
        ]
    if found["log_likelihood_ratio"] is not None:
        lines.append(("log-likelihood ratio", f"{found['log_likelihood_ratio']:+.2f} (natural; above 0 for the same)"))
    lines.append(
        (
            "time",
            f"{1000 * taken['embed']:.0f} ms for {taken['audio']:.1f} s of audio, and "
            f"{1000 * taken['load']:.0f} ms to load the model",
        )
    )
    return "\n".join(f"{name:<21} {value}" for name, value in lines)


if __name__ == "__main__":
    with reported(UNDECIDED):
        main()
