"""What a model's scores mean: as log-likelihood ratios, and against a threshold."""

import json
from dataclasses import dataclass, fields

from src.runtime.errors import InputError

COSINE = "none"  # evaluate.normalisation, where scores are the cosines themselves


@dataclass(frozen=True)
class Calibration:
    """scale, offset: scale * score + offset is a natural-log likelihood ratio, same speaker over different
    ones. threshold_eer: the score at which miss and false-alarm rate are equal. normalisation: that of the scores
    (evaluate.normalisation). Fitted by `calibration.fit`."""

    scale: float
    offset: float
    threshold_eer: float
    normalisation: str = COSINE

    def llrs(self, scores):
        return self.scale * scores + self.offset


def read(path) -> Calibration:
    """What `write` wrote, from a JSON file that may have other keys too.

    Raises InputError when the file is missing or not a calibration.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return Calibration(**{field.name: field.type(content[field.name]) for field in fields(Calibration)})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it") from None
    except KeyError as error:
        raise InputError(f"{path}: not a calibration: no {error}; run its stage again") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a calibration: {error}; run its stage again") from None
