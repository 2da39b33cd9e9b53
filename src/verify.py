"""Verify a speaker: python -m src.verify enrol.wav [more enrolments] test.wav

Prints how alike the voices are (the cosine of their embeddings), what that says (a log-likelihood ratio), and whether
it is the same speaker, at the threshold that the evaluation, or src.calibrate, found. Exit status, as that of cmp: 0 for the same
speaker, 1 for different ones, 2 where there is no decision, whatever went wrong. Needs onnxruntime, numpy, soundfile and
pydantic; soxr too for audio that is not at 16 kHz.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.verify", failed=2)

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from src.common.options import DIFFER, CalibratedOptions
from src.runtime import calibration as calibrations
from src.runtime import engine, scoring, voice
from src.runtime.audio import MAX_SECONDS
from src.runtime.errors import AudioError, InputError, printable
from src.runtime.scoring import mean_direction, normalised

SAME, DIFFERENT, UNDECIDED = 0, 1, 2
DECISIONS = {SAME: "same speaker", DIFFERENT: "different speakers", UNDECIDED: None}


class Options(CalibratedOptions):
    enrol: list[Path] = Field(description="recordings of the speaker, whose embeddings are averaged")
    test: Path = Field(description="the recording in question")
    threshold: float | None = Field(
        None, description="the lowest score of the same speaker; the default is that of the calibration"
    )
    json_: bool = Field(False, description="print JSON")


def main(json_, **options):
    result, status = verify(**options)
    print(json.dumps(result) if json_ else text(result))  # JSON in ASCII is JSON in every encoding
    return status


def verify(
    enrol: Sequence[Path | str],
    test: Path | str,
    model: Path | str,
    threshold: float | None = None,
    max_seconds: float | None = MAX_SECONDS,
    channel: int | None = None,
    calibration: Path | str | None = None,
) -> tuple[dict[str, Any], int]:
    """(the result, as in the JSON that is printed; the exit status).

    threshold: of the score, None for that of the evaluation; max_seconds: that the model hears at once (see
    `audio.limits`); channel: from 1, None for the average; calibration: a file, None for the model's own. Raises InputError when the model, the calibration or a
    recording cannot be used.
    """
    start = time.perf_counter()
    session = engine.session(model)
    fitted, source = calibrations.of_model(model, calibration)
    cohort = calibrations.cohort(fitted, source)
    if threshold is not None and not cohort and abs(threshold) > 1:
        raise InputError(f"--threshold: a cosine is from -1 to 1, got {threshold:g}")
    loaded = time.perf_counter()
    embeddings, seconds = zip(
        *(_embedding(session, path, max_seconds, channel) for path in (*enrol, test)), strict=True
    )
    done = time.perf_counter()
    enrolled, tested = mean_direction(np.stack(embeddings[:-1])), normalised(embeddings[-1].astype(np.float64))
    score = float(enrolled @ tested)
    if not math.isfinite(score):
        raise InputError("the embeddings of the enrolments cancel each other out: no score")
    if cohort:
        score = float(
            scoring.s_norm(score, *(scoring.spread(side[None], *cohort)[:, 0] for side in (enrolled, tested)))
        )
    if threshold is not None:
        source = "--threshold"
    elif fitted:
        threshold = fitted.accepted
    status = UNDECIDED if threshold is None else SAME if score >= threshold else DIFFERENT
    return {
        "score": round(score, 6),
        "threshold": threshold,
        "threshold_from": source,
        "log_likelihood_ratio": fitted and round(fitted.llrs(score), 4),
        "decision": DECISIONS[status],
        "model": str(model),
        "enrol": [str(path) for path in enrol],
        "test": str(test),
        "seconds": {
            "audio": round(sum(seconds), 3),
            "load": round(loaded - start, 4),
            "embed": round(done - loaded, 4),
        },
    }, status


def _embedding(session, path, max_seconds, channel):
    try:
        heard = voice.heard(session, path, max_seconds, channel)
        if heard.differ:
            print(f"note: {printable(path)}: {DIFFER}", file=sys.stderr)
        return heard.embedding, heard.seconds
    except AudioError as error:
        raise InputError(f"{path}: {error}") from None


def text(result: dict[str, Any]) -> str:
    """The result of `verify` as lines to read."""
    taken = result["seconds"]
    lines = [("score", f"{result['score']:.4f}")]
    if result["threshold"] is None:
        reason = result["threshold_from"]
        lines.append(("decision", f"none: no threshold is known ({reason}); give one with --threshold"))
    else:
        lines.append(("threshold", f"{result['threshold']:.4f} ({result['threshold_from']})"))
        lines.append(("decision", result["decision"]))
    if result["log_likelihood_ratio"] is not None:
        lines.append(("log-likelihood ratio", f"{result['log_likelihood_ratio']:+.2f} (natural; above 0 for the same)"))
    embed = f"{1000 * taken['embed']:.0f} ms for {taken['audio']:.1f} s of audio"
    lines.append(("time", f"{embed}, and {1000 * taken['load']:.0f} ms to load the model"))
    return "\n".join(f"{name:<21} {printable(value)}" for name, value in lines)
