"""params.yaml as typed, validated objects."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from ruamel.yaml import YAML

from src.common.files import read_text
from src.common.hub_ids import check_language, check_license
from src.common.options import Scheduler
from src.common.schema import Section, validate
from src.runtime.errors import InputError, one_line

SPLITS = ("calibration", "finetune", "validation", "test")
# The commits that `encoder.revision: null` means, by hub id; of any other repository it means the newest.
PINNED = {"speechbrain/spkrec-ecapa-voxceleb": "eac27266f68caa806381260bd44ace38b136c76a"}
LocalPath = Annotated[str, AfterValidator(os.path.expanduser)]


class Splits(Section):
    calibration: float = Field(gt=0, lt=1)
    finetune: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def sum_to_one(self) -> Self:
        total = sum(getattr(self, name) for name in SPLITS)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four shares must add up to 1, not {total:g}")
        return self


class Data(Section):
    source: Literal["synthetic", "folder", "hub"]
    path: LocalPath | None
    level: int = Field(ge=1, le=10)
    trials: LocalPath | None
    repo: str
    config: str
    revision: str | None
    speaker_column: str | None = Field(min_length=1)
    speakers: int = Field(ge=8, le=100_000)
    utterances_per_speaker: int = Field(ge=2, le=10_000)
    min_seconds: float = Field(ge=0.3, le=60)
    max_seconds: float = Field(ge=0.3, le=600)
    splits: Splits

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds ({self.min_seconds:g}) is above max_seconds ({self.max_seconds:g})")
        if self.source == "folder" and not self.path:
            raise ValueError("path is needed when source is folder")
        if self.trials and self.source != "folder":
            raise ValueError("trials is only for source: folder")
        return self


class Encoder(Section):
    """`revision` is that of PINNED where params.yaml has null and the source is one of them."""

    source: LocalPath = Field(min_length=1)
    revision: str | None
    trust: bool = Field(strict=True)

    @model_validator(mode="before")
    @classmethod
    def pinned(cls, section: object) -> object:
        if isinstance(section, dict) and section.get("revision", "") is None and isinstance(section.get("source"), str):
            return {**section, "revision": PINNED.get(section["source"])}
        return section


class Margins(Section):
    """Losses against fp32, fractions, that are to be excluded for a model to be chosen."""

    eer: float = Field(gt=0, lt=1)
    top1: float = Field(gt=0, lt=1)


class Evaluate(Section):
    protocol: Literal["pairs", "superb-si"]
    enrolments: int = Field(ge=1, le=100)
    max_trials: int = Field(ge=1000, le=100_000_000)
    bootstrap: int = Field(ge=100, le=100_000)
    max_missing_trials: float = Field(ge=0, lt=1)
    normalisation: Literal["none", "s-norm", "as-norm"]
    cohort_top: int = Field(ge=2, le=100_000)
    allow_shared_speakers: bool
    margins: Margins


class Profile(Section):
    seconds: float = Field(ge=0.3, le=60)
    rounds: int = Field(ge=3, le=10_000)
    threads: int = Field(ge=1, le=256)


class WeightBits(Section):
    layer0: Literal[4, 8]
    blocks: Literal[4, 8]
    mfa: Literal[4, 8]
    attention: Literal[4, 8]
    fc: Literal[4, 8]


class Quantize(Section):
    weight_bits: WeightBits
    weights: Literal["portable", "full"]


class Ptq(Section):
    utterances: int = Field(ge=1, le=100_000)
    observer: Literal["histogram", "minmax"]


class Range(Section):
    low: float = Field(ge=0)
    high: float = Field(ge=0)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g})")
        return self


class LogRange(Range):
    low: float = Field(gt=0)


class QatSearch(Section):
    n_trials: int = Field(ge=0, le=10_000)
    objective: Literal["gmacs", "size", "time"]
    steps: int = Field(ge=1, le=1_000_000)
    final_steps: int = Field(ge=1, le=1_000_000)
    structure: bool
    storage: str | None
    crop_seconds: float = Field(ge=0.3, le=30)
    relative_rate: LogRange
    weight_decay: LogRange
    speaker_loss_weight: Range
    batch_size: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def sizes(self) -> Self:
        if min(self.batch_size) < 2 or max(self.batch_size) > 4096:
            raise ValueError("every batch_size must lie between 2 and 4096")
        return self


class Pretrain(Section):
    speakers: int = Field(ge=2, le=100_000)
    utterances_per_speaker: int = Field(ge=1, le=10_000)
    epochs: int = Field(ge=1, le=10_000)


class Breakdown(Section):
    seconds: list[Annotated[float, Field(ge=0.3, le=600)]] = Field(min_length=1)
    snr: list[Annotated[float, Field(ge=-40, le=80)]] = Field(min_length=1)
    channels: list[Literal["alaw", "gsm", "opus", "mp3", "reverberation"]]
    utterances: int = Field(ge=1, le=100_000)

    @model_validator(mode="after")
    def distinct(self) -> Self:
        for name in ("seconds", "snr", "channels"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}: a value is there twice")
        return self


class Release(Section):
    license: Annotated[str, AfterValidator(check_license)] | None
    language: Annotated[str, AfterValidator(check_language)] | None


class Params(Section):
    seed: int = Field(ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"]
    threads: int = Field(ge=1, le=256)
    scheduler: Scheduler | None
    data: Data
    encoder: Encoder
    evaluate: Evaluate
    profile: Profile
    quantize: Quantize
    ptq: Ptq
    qat_search: QatSearch
    pretrain: Pretrain
    breakdown: Breakdown
    release: Release

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.evaluate.protocol == "superb-si" and self.data.source != "hub":
            raise ValueError("evaluate.protocol: superb-si needs data.source: hub, whose data sets have splits")
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """The parameters of the pipeline, of a file in YAML 1.2, as DVC writes it: `no` is a text, 1e-6 a number.

    Raises InputError, one line for each fault, when the file is missing, is not YAML, has an unknown
    or missing key, or a value outside what is allowed.
    """
    text = read_text(path)
    try:
        raw = YAML(typ="safe").load(text)
    except Exception as error:  # the parser's constructors raise whatever Python does with a bad date or number
        raise InputError(f"{path}: not valid YAML: {one_line(error)}") from None
    return validate(Params, raw, lambda keys: f"{path}: {'.'.join(map(str, keys))[:100] or 'the file'}")
