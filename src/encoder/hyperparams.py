"""hyperparams.yaml of an encoder, read as numbers: nothing that the file names is imported or built.

SpeechBrain's own reader builds whatever Python object the file names, so that a stranger's file could run anything.
Here a tag becomes a record of its name and of what is in it. Only the records of the front end and of the network are
looked at, their classes must be known, and their arguments are checked against what the classes take. Whatever else is
in the file, as that of a training has it, stays a record.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from src.encoder.networks import KINDS
from src.encoder.networks.kind import ACTIVATIONS, Arguments, Kind
from src.runtime.errors import InputError

FBANK = "speechbrain.lobes.features.Fbank"
NORM = "speechbrain.processing.features.InputNormalization"
WEIGHTS = "embedding_model.ckpt"
_HOPS = 8  # references to references that are followed
_MOST_VALUES = 100_000  # that a file may stand for; aliases (*) let a few lines stand for billions
_PARTS = 8  # of the path of the weights that are looked at


class _Fbank(Arguments):
    deltas: bool = False
    context: bool = False
    requires_grad: bool = False
    sample_rate: int = Field(16_000, ge=1_000, le=200_000)
    f_min: float = Field(0, ge=0)
    f_max: float | None = Field(None, gt=0)
    n_fft: int = Field(400, ge=16, le=8192)
    n_mels: int = Field(40, ge=1, le=512)
    filter_shape: Literal["triangular", "rectangular", "gaussian"] = "triangular"
    param_change_factor: float = 1.0  # of the training
    param_rand_factor: float = 0.0  # of the training
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


class _Norm(Arguments):
    mean_norm: Literal[True] = True
    std_norm: bool = True
    norm_type: Literal["global", "batch", "sentence"] = "global"
    update_until_epoch: int | None = 2  # of the training
    avoid_padding_norm: Literal[False] = False
    epsilon: float = Field(1e-10, ge=0)
    device: str = "cpu"  # of the training


class Hyperparams(NamedTuple):
    """Keyword arguments of SpeechBrain's Fbank, InputNormalization and network, and the kind of the latter.

    weights: where the file says that the weights are, as paths below the checkpoint, the likeliest first.
    """

    features: dict
    norm: dict
    network: dict
    kind: Kind
    weights: list[str]


class _Record(NamedTuple):
    """What a tag makes of a value, which is a mapping, a list or a text."""

    tag: str
    value: Any
    line: int


def read(path: Path | str, where: str) -> Hyperparams:
    """The arguments that the file gives, references resolved; defaults are left to SpeechBrain.

    Raises InputError, starting with `where`, the file's name, and the line or the key, for what is not YAML, aliases that
    hold themselves or stand for too much, a part that is missing or of a class that is not known, a reference that is
    not understood, an argument that is unknown or out of range, and a path that names no file.
    """
    where = f"{where}: {os.path.basename(path)}"
    try:
        entries = _parsed(path)
        features, norm = (
            _arguments(_part(entries, key, [name]), entries, key, model).model_dump(
                exclude_unset=True, exclude={"device"}
            )
            for key, name, model in (("compute_features", FBANK, _Fbank), ("mean_var_norm", NORM, _Norm))
        )
        network = _part(entries, "embedding_model", list(KINDS))
        kind = KINDS[network.tag.removeprefix("!new:")]
        arguments = _arguments(network, entries, "embedding_model", kind.arguments)
        mels, taken = features.get("n_mels", _Fbank.model_fields["n_mels"].default), getattr(arguments, kind.mels)
        if mels != taken:
            raise InputError(f"compute_features gives {mels} mels, embedding_model takes {taken} ({kind.mels})")
        given = arguments.model_dump(exclude_unset=True, exclude={"device"})
        if "activation" in given:
            given["activation"] = ACTIVATIONS[given["activation"]]
        return Hyperparams(features, norm, given, kind, _weights(entries))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _parsed(path):
    """The file's mapping, with a _Record for every tag."""
    try:
        with open(path, encoding="utf-8") as file:
            loader = _Loader(file)
            node = loader.get_single_node()
            if node is not None:
                _count(node, {})
            entries = node and loader.construct_document(node)
    except InputError:
        raise
    except RecursionError:
        raise InputError("not valid YAML: nested too deeply") from None
    except Exception as error:  # PyYAML's constructors raise whatever Python does with a bad number
        raise InputError(f"not valid YAML: {' '.join(str(error).split())[:300]}") from None
    return entries if isinstance(entries, dict) else {}


def _count(node, sizes):
    """How many values a node stands for when every alias in it is written out; sizes: {node: that, None while it is
    being counted}. Raises InputError where it holds itself, or stands for more than _MOST_VALUES."""
    if node not in sizes:
        sizes[node] = None
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        sizes[node] = 1 + sum(_count(part, sizes) for part in parts)
    if sizes[node] is None:
        raise InputError(f"line {node.start_mark.line + 1}: an alias (*) that holds itself is not loaded")
    if sizes[node] > _MOST_VALUES:
        raise InputError(
            f"line {node.start_mark.line + 1}: aliases (*) that stand for more than {_MOST_VALUES:,} values are not loaded"
        )
    return sizes[node]


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which a date is a text and a tag makes a _Record."""

    yaml_implicit_resolvers: ClassVar[dict] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _recorded(loader, node):
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = node.value
    return _Record(node.tag.replace("tag:yaml.org,2002:", "!!")[:100], value, node.start_mark.line + 1)


_Loader.add_constructor(None, _recorded)  # pyright: ignore[reportArgumentType]


def _part(entries, key, classes):
    """The record of a part that the embedding needs: under its key in `modules`, else in the file; else the one of its
    class under another key."""
    places = [entries]
    if isinstance(modules := _resolved(entries.get("modules"), entries, "modules"), dict):
        places.insert(0, modules)
    allowed = ", ".join(f"!new:{name}" for name in classes)
    for place in places:
        if key in place:
            part = _resolved(place[key], entries, key)
            name = part.tag if isinstance(part, _Record) else type(part).__name__
            if name.removeprefix("!new:") not in classes:
                line = f"line {part.line}: " if isinstance(part, _Record) else ""
                raise InputError(f"{line}{key} is {name}, which is not loaded; allowed: {allowed}")
            return part
    others = {
        name: value
        for place in places
        for name, value in _records(place, entries)
        if value.tag.removeprefix("!new:") in classes and name != f"{key}_emb"
    }
    if len({id(value) for value in others.values()}) == 1:
        return next(iter(others.values()))
    found = f"could be {' or '.join(sorted(others))}" if others else f"nothing else is {allowed}"
    raise InputError(f"{key} missing; {found}"[:500])


def _records(place, entries) -> Iterator[tuple[str, _Record]]:
    """(key, record) of the values that are one, or refer to one."""
    for name, value in place.items():
        try:
            value = _resolved(value, entries, "")
        except InputError:
            continue  # of another part, which is not loaded
        if isinstance(value, _Record):
            yield str(name)[:100], value


def _arguments(part, entries, key, model):
    """What a record gives for the arguments of its class, as an object of the model."""
    if not isinstance(part.value, dict) and part.value != "":
        raise InputError(f"line {part.line}: {key}: {part.tag} takes named arguments; allowed: {_names(model)}")
    given = {}
    for argument, content in dict(part.value or {}).items():
        place = f"{key}.{argument}"[:150]
        content = _resolved(content, entries, place)
        if isinstance(content, list):
            content = [_resolved(item, entries, place) for item in content]
        given[argument] = _plain(content, place)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([key, *map(str, first["loc"])])[:150]
        message = first["msg"].removeprefix("Value error, ")
        got = f", got {str(first['input'])[:60]!r}" if first["loc"] else ""
        raise InputError(f"{place}: {message}{got}; allowed: {_names(model)}") from None


def _names(model):
    return ", ".join(model.model_fields)


def _plain(content, place):
    """The content without records: one of an activation is its name; any other is refused."""
    for value in content if isinstance(content, list) else [content]:
        if isinstance(value, _Record):
            name = value.tag.removeprefix("!name:")
            if value is content and name in ACTIVATIONS and value.value == "":
                return name
            why = "with arguments is not loaded" if name in ACTIVATIONS else "is not loaded"
            allowed = ", ".join(f"!name:{name}" for name in ACTIVATIONS)
            raise InputError(f"line {value.line}: {place}: {value.tag} {why}; allowed: values, !ref, !copy, {allowed}")
    return content


def _resolved(value, entries, key):
    """The value, or what `!ref <name>` leads to."""
    for _ in range(_HOPS):
        if not isinstance(value, _Record) or value.tag not in ("!ref", "!copy"):
            return value
        name = re.fullmatch(r"<([\w-]+)((?:\[[\w-]+\])*)>", str(value.value).strip())
        names = [name[1], *re.findall(r"[\w-]+", name[2])] if name else [None]
        text, value = str(value.value)[:60], entries
        for each in names:
            if not isinstance(value, dict) or each not in value:
                raise InputError(f"{key}: `!ref {text}` is not `!ref <key>` with a key of this file")
            value = value[each]
    raise InputError(f"{key}: a chain of more than {_HOPS} references")


def _weights(entries):
    """Paths below the checkpoint at which the weights may lie: the path that the pretrainer has for them, and the ends
    of it. The file says where it was made, on whatever system; what is loaded lies where the file lies."""
    pretrainer = entries.get("pretrainer")
    paths = pretrainer.value if isinstance(pretrainer, _Record) else None
    for key in ("paths", "embedding_model"):
        paths = paths.get(key) if isinstance(paths, dict) else None
    text, folder = (
        str(value.value if isinstance(value, _Record) else value) for value in (paths, entries.get("pretrained_path"))
    )
    if paths is None:
        return [WEIGHTS]
    within = _ends(text.removeprefix("<pretrained_path>/"))
    if not within:
        raise InputError(f"pretrainer.paths.embedding_model: {' '.join(text.split())[:150]} names no file")
    return list(dict.fromkeys([within[0], *_ends(text.replace("<pretrained_path>", folder))]))


def _ends(path):
    """The ends of a path that are names of files and folders alone, the longest first."""
    parts = []
    for part in reversed(re.split(r"[/\\]", path.strip())[-_PARTS:]):
        if not re.fullmatch(r"[\w.+ -]+", part) or part in (".", ".."):
            break
        parts.insert(0, part)
    return ["/".join(parts[i:]) for i in range(len(parts))]
