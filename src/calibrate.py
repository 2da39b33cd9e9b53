"""Calibrate a model on speakers of your own: python -m src.calibrate FOLDER [--fmr 0.001 | --prior 0.01]

FOLDER has recordings in <speaker>/**; all pairs of them are trials, or those of a list. Writes what src.verify and
src.identify take as --calibration: the calibration of the scores, the threshold that is asked for (for equal error rates
where nothing is), and what a search in a gallery needs; prints how accurate the model is on these speakers, with 95 %
intervals, and how many speakers more would be needed for what is asked. Its fields are those of a release's config.json: an
--out that is about this very model gets them, and keeps its others. An interrupted run goes on where it stopped. Needs
onnxruntime, numpy, scipy, soundfile, pyarrow, ruamel.yaml, pydantic and tqdm; soxr too for audio that is not at 16 kHz.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.calibrate")

import os
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from src.common.files import sha256, write_json
from src.common.options import ModelOptions
from src.data.manifest import Row
from src.data.trial_list import left_out, read_trial_list
from src.evaluate import extract, nontargets, normalise, own_speakers, scores, store
from src.evaluate import trials as trials_of
from src.evaluate.own_speakers import Asked
from src.runtime import calibration, engine
from src.runtime.audio import MAX_SECONDS
from src.runtime.errors import InputError, printable
from src.sources.folder import named_files

MOST_MISSING = 0.01  # share of a list's trials whose recordings may be missing
_NAMES = {"eer": "EER", "cllr": "Cllr", "min_cllr": "minimum Cllr"}


class Options(ModelOptions):
    folder: Path = Field(description="recordings, <speaker>/**")
    trials: Path | None = Field(None, description="a trial list, of VoxCeleb or Kaldi; the default is all pairs")
    prior: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="threshold for this probability of the same speaker, where both errors cost the same",
    )
    fmr: float | None = Field(None, gt=0, lt=1, description="threshold for this false match rate")
    enrolments: int = Field(1, ge=1, le=100, description="recordings that a speaker is enrolled with, averaged")
    out: Path = Field(Path("calibration.json"), description="the file to write")
    workers: int = Field(min(os.cpu_count() or 1, 256), ge=1, le=256, description="threads")

    @field_validator("fmr")
    @classmethod
    def one_of_two(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("prior") is not None:
            raise ValueError("--prior and --fmr both ask for a threshold; give one of them")
        return value


def main(prior=None, fmr=None, **options):
    print(text(calibrate(asked=Asked(prior, fmr), **options)))
    print(f"{printable(options['out'])}: for --calibration of src.verify and src.identify")


def calibrate(
    folder: Path | str,
    out: Path | str,
    model: Path | str,
    asked: Asked | None = None,
    trials: Path | str | None = None,
    enrolments: int = 1,
    workers: int = 1,
    max_seconds: float | None = MAX_SECONDS,
    channel: int | None = None,
) -> dict[str, Any]:
    """Calibrate on a folder's speakers, and write `out` (see the module). Gives what is written.

    Raises InputError when the folder, the list or the model cannot be used, there are too few speakers, or `out` is there
    and not about this model.
    """
    out, asked, checksum = Path(out), asked or Asked(), sha256(model) if Path(model).is_file() else ""
    engine.session(model)
    before = _about_this_model(out, checksum)
    base, source = calibration.of_model(model)
    cohort = calibration.cohort(base, source)
    rows, listed = _rows(folder, trials)
    settings, read, window = extract.reading(model, max_seconds, channel)
    with store.opened(out.with_name(f"{out.name}.partial"), settings) as done:
        embeddings, rows = _embedded(model, rows, read, done, workers, window)
        pairs = _trials(rows, listed, trials, enrolments)
        values = scores.cosine(embeddings, pairs)
        if cohort:
            values = normalise.s_norm(values, embeddings, pairs, *cohort)
        tail = nontargets.measure(embeddings, rows, len(pairs.enrol_rows[0]), *(cohort or ()))
        fitted, extrapolated = own_speakers.calibrated(values, pairs, tail, asked)
        if base and base.cohort:
            file = os.path.relpath(Path(source).parent / base.cohort.file, out.absolute().parent)
            fitted = replace(fitted, normalisation=base.normalisation, cohort=replace(base.cohort, file=file))
        measured = own_speakers.figures(rows, values, pairs, fitted, asked)
        asked_for = {key: value for key, value in vars(asked).items() if value is not None} or {"equal": "error rates"}
        about = {"asked": asked_for, "extrapolated": extrapolated, "enrolments": enrolments, **measured}
        content = {**before, "sha256": checksum, **fitted.fields(), "calibrated_on": about}
        if fitted.threshold is None:
            content.pop("threshold", None)  # of another run
        _about_this_model(out, checksum)  # the run may have taken a while
        write_json(out, content)
        done.discard()
    return content


def _about_this_model(out, checksum):
    """What is in the file `out`, {} where there is none. Raises InputError where it is not about the model."""
    if not os.path.lexists(out):
        return {}
    about = calibration.content(out) if out.is_file() else None
    if not isinstance(about, dict) or about.get("sha256") != checksum:
        raise InputError(f"{out}: is there, and is not about this model; nothing else is changed")
    return about


def _rows(folder, path):
    """(a Row of each recording, the trials of the list or None)."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    skipped, files = named_files(folder)
    for name, why in sorted(skipped.items()):
        print(f"skipped: {printable(name)}: {printable(why)}", file=sys.stderr)
    normal = {unicodedata.normalize("NFC", name): file for name, file in files.items() if "/" in name}
    listed = None
    if path:
        listed = read_trial_list(path, normal.keys())
        left_out(listed, normal.keys(), path, MOST_MISSING)
        named = {name for _, *pair in listed for name in pair}
        normal = {name: file for name, file in normal.items() if name in named}
    rows = [Row(name, name.split("/")[0], "validation", file, 0.0, 0) for name, file in sorted(normal.items())]
    return sorted(rows, key=lambda row: row.speaker), listed


def _embedded(model, rows, read, done, workers, window):
    """(embeddings, float32 [rows, dim]; the rows) of those that can be used."""
    results = dict(extract.embeddings(model, [row.path for row in rows], read, done, workers, window=window))
    usable = [number for number in range(len(rows)) if not isinstance(results[number], str)]
    for number, result in sorted(results.items()):
        if isinstance(result, str):
            print(f"skipped: {printable(rows[number].utt_id)}: {printable(result)}", file=sys.stderr)
    if not usable:
        raise InputError("no recording in a folder of a speaker, directly below the folder, can be used")
    return np.stack([results[number].values for number in usable]), [rows[number] for number in usable]


def _trials(rows, listed, path, enrolments):
    if listed is None:
        return trials_of.all_pairs(rows, enrolments, trials_of.MOST)
    left_out(listed, [row.utt_id for row in rows], path, MOST_MISSING)
    return trials_of.from_list(rows, listed)


def text(content: dict[str, Any]) -> str:
    """What `calibrate` gives, as lines to read."""
    about = content["calibrated_on"]
    threshold = content.get("threshold", content["threshold_eer"])
    ((what, value),) = about["asked"].items()
    kind = {"prior": f"for a prior of {value}", "fmr": f"for an FMR of {value}"}.get(what, "for equal error rates")
    lines = [
        ("speakers", f"{about['speakers']}, {about['trials']:,} trials, {about['target_trials']:,} of them target"),
        ("threshold", f"{threshold:.4f} {kind}{', extrapolated beyond the trials' * about['extrapolated']}"),
    ]
    rates = about["at_threshold"]
    for key, number in (("fmr", "false_matches"), ("fnmr", "misses")):
        low, high = (100 * rates[f"{key}_ci"][end] for end in ("low", "high"))
        lines.append((key.upper(), f"{100 * rates[key]:.3f} % [{low:.3f}, {high:.3f}] there, {rates[number]:,} trials"))
    for key in about:
        if f"{key}_ci" in about:
            low, high = (about[f"{key}_ci"][end] for end in ("low", "high"))
            name = _NAMES.get(key) or key.replace("min_dcf_", "minDCF ").replace("act_dcf_", "actual DCF ")
            lines.append((name, f"{about[key]:.4f} [{low:.4f}, {high:.4f}]"))
    lines += [(key, f"not given: {why}") for key, why in about.get("refused", {}).items()]
    if "speakers_needed" in about:
        more = about["speakers_needed"] - about["speakers"]
        need = f"{more:,} speakers more, with as many recordings each," if more else "no more speakers"
        lines.append(("needed", f"{need} for 30 false matches at this rate (the rule of 30)"))
    return "\n".join(f"{name:<21} {value}" for name, value in lines)
