"""What a model's scores mean: as log-likelihood ratios, and against a threshold."""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from src.runtime.errors import InputError, one_line, reason

COSINE = "none"  # evaluate.normalisation, where scores are the cosines themselves
COHORT_FILE = "cohort.npy"
_HUGE = 1e9  # no scale, offset or threshold is as large
_NORMAL = NormalDist()
_SHOWN = 10  # scores, of those fitted to, that are to lie above a threshold for it to be within the data


@dataclass(frozen=True)
class Nontargets:
    """The highest scores of different speakers, as the tail of a normal distribution: a share of 1 - Phi(z) of all is at or
    above location + scale * z. trials: how many scores it was fitted to; enrolments: how many recordings were averaged on
    the enrolled side, which raises all scores."""

    location: float
    scale: float
    trials: int
    enrolments: int = 1

    def threshold(self, fpir: float, size: int) -> float:
        """The score that the best of a gallery of `size` reaches in a share `fpir` of the searches for somebody who is not in
        it.

        With 1 - (1 - fpir) ** (1 / size) of single comparisons at or above it. That takes comparisons for independent;
        they are not, since some voices are like many, so that fewer searches are wrong than asked for, not more.
        """
        return self.location - self.scale * _NORMAL.inv_cdf(self._each(fpir, size))

    def beyond(self, fpir: float, size: int) -> bool:
        """Whether fewer than ten of the scores fitted to can be expected above `threshold`: it is extrapolated."""
        return self._each(fpir, size) * self.trials < _SHOWN

    def share(self, score: float) -> float:
        """Of single comparisons of different speakers those at or above a high score."""
        return _NORMAL.cdf((self.location - score) / self.scale)

    def _each(self, fpir, size):
        return -math.expm1(math.log1p(-fpir) / size)


@dataclass(frozen=True)
class Cohort:
    """The voices that scores are normalised with, in a file of NumPy's, float [speakers, dim], length-normalised.

    file: from the folder of the calibration on; sha256: its checksum; top: how many of a recording's highest scores count,
    None for all.
    """

    file: str
    sha256: str
    top: int | None


@dataclass(frozen=True)
class Calibration:
    """scale, offset: scale * score + offset is a natural-log likelihood ratio, same speaker over different
    ones. threshold_eer: the score at which miss and false-alarm rate are equal. normalisation: that of the scores
    (evaluate.normalisation), with its cohort. threshold: the score for decisions, None for threshold_eer. nontargets: what
    a search in a gallery needs. Fitted by `score_calibration.fit`."""

    scale: float
    offset: float
    threshold_eer: float
    normalisation: str = COSINE
    threshold: float | None = None
    nontargets: Nontargets | None = None
    cohort: Cohort | None = None

    @property
    def accepted(self) -> float:
        """The lowest score of the same speaker."""
        return self.threshold_eer if self.threshold is None else self.threshold

    def llrs(self, scores: Any) -> Any:
        """Natural-log likelihood ratios of a score, or an array of them."""
        return self.scale * scores + self.offset

    def fields(self) -> dict[str, Any]:
        """As files have it: without what it lacks."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def read(path: str | os.PathLike) -> Calibration:
    """What `score_calibration.write` wrote, from a JSON file that may have other keys too.

    Raises InputError when the file is missing or not a calibration.
    """
    return _calibration(path, content(path))


def of_model(model: str | os.PathLike, path: str | os.PathLike | None = None) -> tuple[Calibration | None, str]:
    """(the Calibration of a model, the file that has it); (None, why there is none) where there is none.

    It is that at `path`, where one is named. Otherwise config.json beside the model, as in models/release, has that of the
    file with the checksum it names; that of models/<name>.onnx is in metrics/evaluation/<name>/calibration.json beside the
    folder models. Raises InputError when the file is damaged, or that at `path` is missing or about another model.
    """
    model = Path(model)
    folder = model.parent.resolve()
    release = folder / "config.json"
    evaluation = folder.parent / "metrics/evaluation" / model.stem / "calibration.json"
    source = Path(path) if path is not None else next(filter(Path.exists, (release, evaluation)), None)
    if source is None:
        return None, f"neither {release} nor {evaluation} is there"
    about = content(source)
    calibration = _calibration(source, about)
    bound = path is not None or source == release  # names its model; the other lies where that model's does
    if bound and _value(source, about, "sha256", str) != _sha256(model):
        if path is None:
            return None, f"{source} is about another model"
        raise InputError(f"{path}: is about another model than {model}; src.calibrate makes one for it")
    if calibration.normalisation != COSINE and not calibration.cohort:
        return None, f"{source} is about scores after {calibration.normalisation}, which takes a cohort"
    return calibration, str(source)


def cohort(calibration: Calibration | None, source: str | os.PathLike) -> tuple[np.ndarray, int | None] | None:
    """The cohort of the calibration in the file `source`: (float [speakers, dim], length-normalised; how many of the highest
    scores count, None for all); None where scores are not normalised.

    Raises InputError when its file is missing, another, or damaged.
    """
    if not calibration or not calibration.cohort:
        return None
    path = Path(source).parent / calibration.cohort.file
    try:
        if _sha256(path) != calibration.cohort.sha256:
            raise InputError(f"{path}: is not the cohort that {source} names")
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: the cohort of {source} cannot be read: {reason(error)}") from None
    except ValueError as error:
        raise InputError(f"{path}: not a cohort: {one_line(error)}") from None
    if values.ndim != 2 or values.dtype.kind != "f":
        raise InputError(f"{path}: not a cohort: {values.dtype} {list(values.shape)}")
    return values, calibration.cohort.top


def content(path: str | os.PathLike) -> Any:
    """What a JSON file has. Raises InputError when it is missing or no JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a calibration: {one_line(error)}; run its stage again") from None


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _calibration(path, about):
    def number(key, part=about):
        return _value(path, part, key, float)

    def optional(key, read, part=about):
        return read(key) if isinstance(part, dict) and part.get(key) is not None else None

    def nontargets(key):
        part = about[key]
        sizes = (_value(path, part, name, int, above=0) for name in ("trials", "enrolments"))
        return Nontargets(number("location", part), _value(path, part, "scale", float, above=0), *sizes)

    def voices(key):
        part = about[key]
        top = optional("top", lambda name: _value(path, part, name, int, above=1), part)
        return Cohort(_value(path, part, "file", str), _value(path, part, "sha256", str), top)

    return Calibration(
        **{key: number(key) for key in ("scale", "offset", "threshold_eer")},
        normalisation=_value(path, about, "normalisation", str),
        threshold=optional("threshold", number),
        nontargets=optional("nontargets", nontargets),
        cohort=optional("cohort", voices),
    )


def _value(path, about, key, kind, above=-_HUGE):
    """The value of a key, of a type; of numbers, one that is not huge, and above a bound."""
    if not isinstance(about, dict) or key not in about:
        raise InputError(f"{path}: not a calibration: no {key!r}; run its stage again")
    value = about[key]
    types = (int, float) if kind is float else (kind,)
    if type(value) not in types or (kind is not str and not above < value < _HUGE):  # NaN is not
        raise InputError(f"{path}: not a calibration: {key} is {str(value)[:50]!r}; run its stage again")
    return value
