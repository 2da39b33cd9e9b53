"""What a model's scores mean: as log-likelihood ratios, and against a threshold."""

import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from src.runtime.errors import InputError, one_line, reason

COSINE = "none"  # evaluate.normalisation, where scores are the cosines themselves
_HUGE = 1e9  # no scale, offset or threshold is as large


@dataclass(frozen=True)
class Calibration:
    """scale, offset: scale * score + offset is a natural-log likelihood ratio, same speaker over different
    ones. threshold_eer: the score at which miss and false-alarm rate are equal. normalisation: that of the scores
    (evaluate.normalisation). Fitted by `calibration.fit`."""

    scale: float
    offset: float
    threshold_eer: float
    normalisation: str = COSINE

    def llrs(self, scores: Any) -> Any:
        """Natural-log likelihood ratios of a score, or an array of them."""
        return self.scale * scores + self.offset


def read(path: str | os.PathLike) -> Calibration:
    """What `score_calibration.write` wrote, from a JSON file that may have other keys too.

    Raises InputError when the file is missing or not a calibration.
    """
    return _calibration(path, _content(path))


def of_model(model: str | os.PathLike) -> tuple[Calibration | None, str]:
    """(the Calibration of a model, the file that has it); (None, why there is none) where there is none.

    config.json beside the model, as in models/release, has that of the file with the checksum it names; that of
    models/<name>.onnx is in metrics/evaluation/<name>/calibration.json beside the folder models. Raises InputError
    when the file is damaged.
    """
    model = Path(model)
    folder = model.parent.resolve()
    release = folder / "config.json"
    evaluation = folder.parent / "metrics/evaluation" / model.stem / "calibration.json"
    if release.exists():
        content = _content(release)
        calibration, source = _calibration(release, content), release
        with open(model, "rb") as file:
            if _value(release, content, "sha256") != hashlib.file_digest(file, "sha256").hexdigest():
                return None, f"{release} is about another model"
    elif evaluation.exists():
        calibration, source = read(evaluation), evaluation
    else:
        return None, f"neither {release} nor {evaluation} is there"
    if calibration.normalisation != COSINE:
        return None, f"{source} is about scores after {calibration.normalisation}, which takes a cohort"
    return calibration, str(source)


def _content(path) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a calibration: {one_line(error)}; run its stage again") from None


def _calibration(path, content):
    values = {field.name: _value(path, content, field.name) for field in fields(Calibration)}
    for name, value in values.items():
        number = type(value) in (int, float) and -_HUGE < value < _HUGE  # NaN is not
        if not (isinstance(value, str) if name == "normalisation" else number):
            raise InputError(f"{path}: not a calibration: {name} is {str(value)[:50]!r}; run its stage again")
    return Calibration(**values)


def _value(path, content, key):
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"{path}: not a calibration: no {key!r}; run its stage again")
    return content[key]
