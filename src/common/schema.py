"""Values that people give, in params.yaml and as options, as typed, validated objects."""

import difflib
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from src.runtime.errors import InputError

_SHOWN = 100  # characters of a wrong value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes true for 1, and any text for a path."""
        kind = cls.model_fields[info.field_name or ""].annotation  # a validator of fields has a name
        values = value if isinstance(value, list) else [value]
        if kind is not bool and bool not in get_args(kind) and any(isinstance(item, bool) for item in values):
            raise ValueError(f"true and false are not allowed here, got {value!r}")
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value)):
            raise ValueError(f"not a text that a path can hold, got {ascii(value)[:_SHOWN]}")
        return value


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], content: Any, name: Callable[[tuple], str]) -> Model:
    """The content as an object of the model.

    name: what a message calls the value at a path of keys into the content. Raises InputError, one line for each fault,
    where a key is unknown or missing, or a value is outside what is allowed.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(*(_explain(model, fault, name(fault["loc"])) for fault in error.errors())) from None


def _names(model, where):
    """The keys allowed at `where`, a path of keys into the model."""
    for key in where:
        model = model.model_fields[key].annotation
    return list(model.model_fields)


def _explain(model, error, where):
    if error["type"] == "extra_forbidden":
        allowed = _names(model, error["loc"][:-1])
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
