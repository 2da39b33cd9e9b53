"""hyperparams.yaml of an ECAPA-TDNN, read as numbers: nothing that the file names is imported or built.

SpeechBrain's own reader builds whatever Python object the file names, so that a stranger's file could run anything.
Here a tag becomes a record of its name and its arguments, the tags are those of the published layout, and the
arguments are checked against what the classes take.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from src.runtime.errors import InputError

FBANK = "speechbrain.lobes.features.Fbank"
NORM = "speechbrain.processing.features.InputNormalization"
ECAPA = "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
PRETRAINER = "speechbrain.utils.parameter_transfer.Pretrainer"
RELU = "torch.nn.ReLU"
# The last two are in every such file and take no part in the embedding: they are passed over.
CLASSES = (
    FBANK,
    NORM,
    ECAPA,
    PRETRAINER,
    "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
    "speechbrain.dataio.encoder.CategoricalEncoder",
)
ALLOWED_TAGS = ("!ref", "!copy", f"!name:{RELU}", *(f"!new:{name}" for name in CLASSES))
_HOPS = 8  # references to references that are followed

Channels = Annotated[int, Field(ge=1, le=8192)]
PerLayer = Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=3, max_length=32)]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Fbank(_Arguments):
    """The defaults are SpeechBrain's; those that are left out here it fills in itself."""

    deltas: bool = False
    context: bool = False
    requires_grad: bool = False
    sample_rate: int = Field(16_000, ge=1_000, le=200_000)
    f_min: float = Field(0, ge=0)
    f_max: float | None = Field(None, gt=0)
    n_fft: int = Field(400, ge=16, le=8192)
    n_mels: int = Field(40, ge=1, le=512)
    filter_shape: Literal["triangular", "rectangular", "gaussian"] = "triangular"
    left_frames: int = Field(5, ge=0, le=100)
    right_frames: int = Field(5, ge=0, le=100)
    win_length: float = Field(25, gt=0, le=1_000)
    hop_length: float = Field(10, gt=0, le=1_000)

    @model_validator(mode="after")
    def consistent(self) -> "_Fbank":
        window, hop = (round(self.sample_rate / 1000 * length) for length in (self.win_length, self.hop_length))
        if not 1 <= hop <= window <= self.n_fft:
            raise ValueError(f"hop ({hop} samples), window ({window}) and n_fft ({self.n_fft}) must not fall")
        if not self.f_min < (self.f_max or self.sample_rate // 2) <= self.sample_rate / 2:
            raise ValueError("f_min, f_max and half the sample rate must rise")
        return self


class _Norm(_Arguments):
    mean_norm: Literal[True] = True
    std_norm: bool = True
    norm_type: Literal["global", "batch", "sentence"] = "global"


class _Ecapa(_Arguments):
    input_size: int = Field(ge=1, le=512)
    lin_neurons: Channels = 192
    activation: Literal["torch.nn.ReLU"] = "torch.nn.ReLU"
    channels: Annotated[list[Channels], Field(min_length=3, max_length=32)] = [512, 512, 512, 512, 1536]
    kernel_sizes: PerLayer = [5, 3, 3, 3, 1]
    dilations: PerLayer = [1, 2, 3, 4, 1]
    groups: PerLayer = [1, 1, 1, 1, 1]
    attention_channels: Channels = 128
    res2net_scale: int = Field(8, ge=1, le=64)
    se_channels: Channels = 128
    global_context: bool = True
    dropout: float = Field(0, ge=0, lt=1)


class Hyperparams(NamedTuple):
    """Keyword arguments of SpeechBrain's Fbank, InputNormalization and ECAPA_TDNN, and the file of the weights."""

    features: dict
    norm: dict
    network: dict
    weights: str


class _New(NamedTuple):
    name: str
    arguments: dict


class _Reference(NamedTuple):
    text: str


class _Loader(yaml.SafeLoader):
    """Plain YAML without anchors, and the tags of ALLOWED_TAGS."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            # A few lines of aliases can stand for billions of values, or hold themselves.
            raise InputError(f"line {self.peek_event().start_mark.line + 1}: an alias (*) is not loaded")
        return super().compose_node(parent, index)


def _tagged(loader, _, node):
    if node.tag in ("!ref", "!copy") and isinstance(node, yaml.ScalarNode):
        return _Reference(node.value)
    if node.tag == f"!name:{RELU}" and isinstance(node, yaml.ScalarNode) and not node.value:
        return RELU
    if node.tag in ALLOWED_TAGS and node.tag.startswith("!new:"):
        if isinstance(node, yaml.MappingNode):
            return _New(node.tag.removeprefix("!new:"), loader.construct_mapping(node, deep=True))
        if isinstance(node, yaml.ScalarNode) and not node.value:
            return _New(node.tag.removeprefix("!new:"), {})
    return _refuse(loader, node)


def _refuse(_, node):
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    why = "with such a value is not loaded" if tag in ALLOWED_TAGS else "is not loaded"
    raise InputError(f"line {node.start_mark.line + 1}: {tag[:100]} {why}; allowed: {', '.join(ALLOWED_TAGS)}")


_Loader.add_multi_constructor("!", _tagged)
_Loader.add_constructor(None, _refuse)  # pyright: ignore[reportArgumentType]


def read(path: Path | str, where: str) -> Hyperparams:
    """The arguments that the file gives, references resolved; defaults are left to SpeechBrain.

    Raises InputError, starting with `where`, the file's name, and the line or the key, for what is not YAML, a tag
    or class outside of ALLOWED_TAGS, an alias, a reference that is not understood, an argument that is unknown
    or out of range, and a path that leads out of the checkpoint.
    """
    where = f"{where}: {os.path.basename(path)}"
    try:
        with open(path, encoding="utf-8") as file:
            entries = yaml.load(file, _Loader)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # PyYAML's constructors raise whatever Python does with a bad date or number
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    entries = entries if isinstance(entries, dict) else {}
    missing = [key for key in ("modules", "pretrainer", "embedding_model") if key not in entries]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} missing; a SpeechBrain ECAPA-TDNN has them")
    try:
        modules = entries["modules"] if isinstance(entries["modules"], dict) else {}
        parts = (
            ("compute_features", FBANK, _Fbank),
            ("mean_var_norm", NORM, _Norm),
            ("embedding_model", ECAPA, _Ecapa),
        )
        features, norm, network = (
            _arguments(modules.get(key), entries, f"modules.{key}", kind, model) for key, kind, model in parts
        )
        return Hyperparams(features, norm, network, _weights(entries))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _arguments(value, entries, key, kind, model):
    value = _resolved(value, entries, key)
    name = value.name if isinstance(value, _New) else type(value).__name__
    if name != kind:
        raise InputError(f"{key} is {name}, not {kind}")
    given = {}
    for argument, content in value.arguments.items():
        content = _resolved(content, entries, f"{key}.{argument}"[:150])
        if isinstance(content, list):
            content = [_resolved(item, entries, f"{key}.{argument}"[:150]) for item in content]
        given[argument] = content
    try:
        found = model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([key, *map(str, first["loc"])])[:150]
        message = first["msg"].removeprefix("Value error, ")
        got = f", got {str(first['input'])[:60]!r}" if first["loc"] else ""
        raise InputError(f"{place}: {message}{got}; allowed: {', '.join(model.model_fields)}") from None
    return found.model_dump(exclude_unset=True, exclude={"activation"})


def _resolved(value, entries, key):
    """The value, or what `!ref <name>` leads to."""
    for _ in range(_HOPS):
        if not isinstance(value, _Reference):
            return value
        name = re.fullmatch(r"<([\w-]+)>", value.text.strip())
        if not name or name[1] not in entries:
            raise InputError(f"{key}: `!ref {value.text[:60]}` is not `!ref <key>` with a key of this file")
        value = entries[name[1]]
    raise InputError(f"{key}: a chain of more than {_HOPS} references")


def _weights(entries):
    """Where the weights are in the checkpoint, all of the Pretrainer's paths being within it."""
    pretrainer = _resolved(entries["pretrainer"], entries, "pretrainer")
    if not isinstance(pretrainer, _New) or pretrainer.name != PRETRAINER:
        raise InputError(f"pretrainer is not {PRETRAINER}")
    paths = pretrainer.arguments.get("paths", {})
    if not isinstance(paths, dict):
        raise InputError("pretrainer.paths is not a mapping")
    files = {key: _within(value, f"pretrainer.paths.{key}"[:150]) for key, value in paths.items()}
    return files.get("embedding_model", "embedding_model.ckpt")


def _within(value, key):
    text = value.text if isinstance(value, _Reference) else str(value)
    # The file says where it was published; what is loaded comes from where this file lies.
    name = text.strip().removeprefix("<pretrained_path>/") if isinstance(value, _Reference) else text
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or {".", ".."} & set(PurePosixPath(name).parts):
        shown = " ".join(text.split())[:150]
        raise InputError(f"{key}: {shown} leads out of the checkpoint; only <pretrained_path>/name is read")
    return name
