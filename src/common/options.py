"""Options of the commands that run a model on recordings."""

import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from src.common.schema import Section
from src.runtime.audio import MAX_SECONDS, SHORTEST, WINDOWS

DIFFER = "channels differ (two speakers, or opposite polarity), and are averaged; --channel chooses one"


def _address(value):
    if not re.fullmatch(r"local|(tcp|tls|ucx)://\S+", value):
        raise ValueError(f"the address of a Dask scheduler, such as tcp://host:8786, or local is needed, got {value!r}")
    return value


Scheduler = Annotated[str, AfterValidator(_address)]


class ModelOptions(Section):
    model: Path = Field(Path("models/qat.onnx"), description="an ONNX file")
    max_seconds: float | None = Field(
        MAX_SECONDS,
        ge=SHORTEST,
        allow_inf_nan=True,
        description="what is longer is heard in windows of at most this, of which there are at most "
        f"{WINDOWS}, and their embeddings are averaged; inf: in one, whatever the length",
    )
    channel: int | None = Field(
        None,
        description="the channel, from 1, that is used of recordings with several; or average, which is the default",
    )

    @field_validator("max_seconds")
    @classmethod
    def unlimited(cls, value: float | None) -> float | None:
        return None if value == math.inf else value

    @field_validator("channel", mode="before")
    @classmethod
    def numbered(cls, value: Any) -> int | None:
        if value == "average":
            return None
        if not str(value).isdecimal() or not 1 <= int(value) <= 1024:  # libsndfile's most
            raise ValueError(f"a channel's number from 1 to 1024, or average, is needed, got {value!r}")
        return int(value)


class CalibratedOptions(ModelOptions):
    calibration: Path | None = Field(
        None,
        description="what src.calibrate wrote; the default is config.json beside the model, else "
        "metrics/evaluation/<model>/calibration.json",
    )
