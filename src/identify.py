"""Identify speakers: python -m src.identify GALLERY recording [recording ...]

Searches a gallery (see src.enrol) for the speaker of each recording and prints a line for each: the name of the likest
speaker or `unknown`, the score, what that says (a log-likelihood ratio), and by how much the second likest is less like. The
threshold is that at which of so many searches for somebody who is not in a gallery of this size a share --fpir names
somebody all the same; it rises with the gallery. Notes say where a recording is short or noisy, or more than one speaker is
over the threshold. Exit status: 0 where all are identified, 1 where one is unknown, 2 where there is no decision on one,
whatever went wrong. Needs onnxruntime, numpy, soundfile, pydantic and tqdm; soxr too for audio that is not at 16 kHz.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.identify", failed=2)

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from src.common.files import sha256
from src.common.options import DIFFER, CalibratedOptions
from src.evaluate.extract import on_threads
from src.runtime import calibration as calibrations
from src.runtime import engine, scoring, voice
from src.runtime import gallery as galleries
from src.runtime.audio import MAX_SECONDS
from src.runtime.errors import AudioError, InputError, count, printable
from src.runtime.scoring import normalised
from src.runtime.search import Index

IDENTIFIED, UNKNOWN, UNDECIDED = 0, 1, 2
DECISIONS = {IDENTIFIED: "identified", UNKNOWN: "unknown", UNDECIDED: None}
FPIR = 0.01
SHORT = 2.0  # seconds; below, errors are half as many again (docs/results.md, breakdown by length)


class Options(CalibratedOptions):
    gallery: Path = Field(description="a file of src.enrol")
    recordings: list[Path] = Field(description="the recordings in question, one speaker each")
    fpir: float = Field(
        FPIR,
        gt=0,
        lt=0.5,
        description="false-positive identification rate: share of searches for unknown speakers that name one",
    )
    threshold: float | None = Field(None, description="the lowest score of an identified speaker, in place of --fpir")
    top: int = Field(1, ge=1, le=1000, description="how many of the likest speakers are named")
    workers: int = Field(min(os.cpu_count() or 1, 256), ge=1, le=256, description="threads")
    json_: bool = Field(False, description="print JSON, a line for each recording")


def main(json_, **options):
    worst = IDENTIFIED
    for result, status in identify(**options):
        print(json.dumps(result) if json_ else text(result), flush=True)
        worst = max(worst, status)
    return worst


def identify(
    gallery: Path | str,
    recordings: Sequence[Path | str],
    model: Path | str,
    fpir: float = FPIR,
    threshold: float | None = None,
    top: int = 1,
    workers: int = 1,
    max_seconds: float | None = MAX_SECONDS,
    channel: int | None = None,
    calibration: Path | str | None = None,
) -> Iterator[tuple[dict[str, Any], int]]:
    """(what is known of a recording, as in the JSON that is printed; its status) of each recording, in turn.

    threshold: of the score, None for that which goes with `fpir` and the gallery's size; other options as for `verify`.
    Raises InputError when the model, the calibration or the gallery cannot be used.
    """
    session = engine.session(model)
    fitted, source = calibrations.of_model(model, calibration)
    cohort = calibrations.cohort(fitted, source)
    with galleries.opened(gallery, galleries.Model(sha256(model), str(model))) as enrolled:
        index = Index(enrolled.voiceprints(), len(enrolled))
        if not len(index):
            raise InputError(f"{gallery}: nobody is enrolled in it; src.enrol does that")
        extrapolated = False
        if threshold is not None:
            origin = "--threshold"
        elif fitted and fitted.nontargets:
            threshold = fitted.nontargets.threshold(fpir, len(index))
            extrapolated = fitted.nontargets.beyond(fpir, len(index))
            origin = f"FPIR {fpir:g} in a gallery of {len(index)}, {source}"
            usual = enrolled.usual_recordings()
            if usual != fitted.nontargets.enrolments:
                print(
                    f"note: {printable(gallery)}: a voiceprint is of {count(usual, 'recording')} (median), {source} of "
                    f"{fitted.nontargets.enrolments}: the more, the higher all scores; src.calibrate --enrolments {usual}",
                    file=sys.stderr,
                )
        else:
            origin = f"{source} does not say how different speakers score" if fitted else source
        spreads = scoring.spread(index.voiceprints, *cohort) if cohort else None

        def heard(path):
            try:
                return voice.heard(session, path, max_seconds, channel)
            except AudioError as error:
                return str(error)

        known = {"gallery": len(index), "threshold": threshold, "threshold_from": origin, "extrapolated": extrapolated}
        for path, result in zip(recordings, on_threads(heard, recordings, workers), strict=True):
            about: dict[str, Any] = {"recording": str(path), "decision": None, "speaker": None}
            if isinstance(result, str):
                yield about | {"reason": result}, UNDECIDED
                continue
            if result.differ:
                print(f"note: {printable(path)}: {DIFFER}", file=sys.stderr)
            probe = normalised(result.embedding.astype(np.float64))
            positions, scores = _search(index, probe, max(top, 2), spreads, cohort)
            names, _ = zip(*map(enrolled.named, index.ids[positions, None]), strict=True)
            candidates = [
                {
                    "speaker": name[0] if name else None,  # removed a moment ago
                    "score": round(float(score), 6),
                    "log_likelihood_ratio": fitted and round(float(fitted.llrs(score)), 4),
                }
                for name, score in zip(names, scores, strict=True)
            ]
            status = UNDECIDED if threshold is None else IDENTIFIED if scores[0] >= threshold else UNKNOWN
            about["decision"] = DECISIONS[status]
            about["speaker"] = candidates[0]["speaker"] if status == IDENTIFIED else None
            about |= {key: candidates[0][key] for key in ("score", "log_likelihood_ratio")}
            about["margin"] = round(float(scores[0] - scores[1]), 6) if len(scores) > 1 else None
            about |= {"seconds": round(result.seconds, 3), "signal_to_noise_db": round(result.snr, 1)}
            yield (
                about | known | {"notes": _notes(result, candidates, threshold), "candidates": candidates[:top]},
                status,
            )


def _search(index, probe, number, spreads, cohort):
    if spreads is None:
        return index.best(probe, number)
    mean, std = scoring.spread(probe[None], *cohort)[:, 0]
    gains = (1 / spreads[1] + 1 / std) / 2
    offsets = -(spreads[0] / spreads[1] + mean / std) / 2
    return index.best(probe, number, gains, offsets)


def _notes(heard, candidates, threshold):
    notes = []
    if heard.seconds < SHORT:
        notes.append(f"short: under {SHORT:g} s, which is little to tell voices apart")
    if heard.snr < voice.NOISY:
        notes.append(f"noisy: speech lies only {heard.snr:.0f} dB over what sounds between words")
    over = [each["speaker"] for each in candidates if threshold is not None and each["score"] >= threshold]
    if len(over) > 1:
        notes.append(f"more than one speaker is over the threshold: {', '.join(map(str, over))}")
    return notes


def text(result: dict[str, Any]) -> str:
    """What `identify` gives of a recording, as a line to read."""
    if "reason" in result:
        return printable(f"{result['recording']}: no decision: {result['reason']}")
    first, *others = result["candidates"]
    if result["decision"] == DECISIONS[IDENTIFIED]:
        answer = result["speaker"]
    elif result["decision"] == DECISIONS[UNKNOWN]:
        answer = f"unknown (likest: {first['speaker']})"
    else:
        answer = f"no decision (likest: {first['speaker']}; {result['threshold_from']}; give a --calibration or a --threshold)"
    parts = [f"score {result['score']:.4f}"]
    if result["threshold"] is not None:
        parts[0] += f" (threshold {result['threshold']:.4f}{', extrapolated' if result['extrapolated'] else ''})"
    if result["log_likelihood_ratio"] is not None:
        parts.append(f"log-likelihood ratio {result['log_likelihood_ratio']:+.2f}")
    if result["margin"] is not None:
        parts.append(f"margin {result['margin']:.4f}")
    parts.append(f"{result['seconds']:.1f} s")
    if others:
        parts.append("then " + ", ".join(f"{each['speaker']} {each['score']:.4f}" for each in others))
    parts += [f"note: {note}" for note in result["notes"]]
    return printable(f"{result['recording']}: {answer}; {'; '.join(parts)}")
