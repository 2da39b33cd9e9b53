"""params.yaml as typed, validated objects."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML

from src.common.hub_ids import check_language, check_license
from src.runtime.errors import InputError

_SHOWN = 100  # characters of a wrong value
SPLITS = ("calibration", "finetune", "validation", "test")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def plain(cls, value, info):
        """Pydantic takes true for 1, and any text for a path."""
        kind = cls.model_fields[info.field_name].annotation
        values = value if isinstance(value, list) else [value]
        if kind is not bool and bool not in get_args(kind) and any(isinstance(item, bool) for item in values):
            raise ValueError(f"true and false are not allowed here, got {value!r}")
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value)):
            raise ValueError(f"not a text that a path can hold, got {ascii(value)[:_SHOWN]}")
        return value


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


class Evaluate(Section):
    protocol: Literal["pairs", "superb-si"]
    enrolments: int = Field(ge=1, le=100)
    bootstrap: int = Field(ge=100, le=100_000)
    normalisation: Literal["none", "s-norm", "as-norm"]
    cohort_top: int = Field(ge=2, le=100_000)
    allow_shared_speakers: bool
    margin: float = Field(gt=0, lt=1)


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
    reduce_range: bool | Literal["auto"]


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


class ShareRange(Range):
    low: float = Field(gt=0, le=1)
    high: float = Field(gt=0, le=1)


class QatSearch(Section):
    n_trials: int = Field(ge=1, le=10_000)
    steps: int = Field(ge=1, le=1_000_000)
    final_steps: int = Field(ge=1, le=1_000_000)
    structure: bool
    kept_macs: ShareRange
    eer_margin: float = Field(gt=0, lt=1)
    storage: str | None
    crop_seconds: float = Field(ge=0.3, le=30)
    learning_rate: LogRange
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
    utterances: int = Field(ge=1, le=100_000)

    @model_validator(mode="after")
    def distinct(self) -> Self:
        for name in ("seconds", "snr"):
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


def _names(model, where):
    """The keys allowed at `where`, a path of keys into the model."""
    for key in where:
        model = model.model_fields[key].annotation
    return list(model.model_fields)


def _explain(error):
    where = ".".join(str(part) for part in error["loc"])[:_SHOWN] or "the file"
    if error["type"] == "extra_forbidden":
        allowed = _names(Params, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), allowed, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(allowed)}"
        return f"{where}: unknown key, got {_shown(error['input'])}; {hint}"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{where}: {message}"
    quotes = "; a text that looks like a number or a date is put in quotes" if error["type"] == "string_type" else ""
    return f"{where}: {message}, got {_shown(error['input'])}{quotes}"


def _shown(value):
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def load(path: str | Path = "params.yaml") -> Params:
    """The parameters of the pipeline, of a file in YAML 1.2, as DVC writes it: `no` is a text, 1e-6 a number.

    Raises InputError, one line for each fault, when the file is missing, is not YAML, has an unknown
    or missing key, or a value outside what is allowed.
    """
    try:
        raw = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # the parser's constructors raise whatever Python does with a bad date or number
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise InputError(*(f"{path}: {_explain(e)}" for e in error.errors())) from None
