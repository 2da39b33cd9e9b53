"""The kinds of networks, one file each, and what is common to all: docs/architecture.md says how to add one."""

from typing import Any

import torch
from torch import nn

from src.encoder.networks import ecapa, resnet, xvector
from src.encoder.networks.kind import Kind
from src.runtime.errors import InputError

KINDS = {kind.path: kind for kind in (ecapa.KIND, xvector.KIND, resnet.KIND)}
NAMES = {kind.name: kind for kind in KINDS.values()}


def kind(embedding_model: Any, where: str = "encoder") -> Kind:
    """The Kind of a SpeechBrain network. Raises InputError, naming `where`, when it is none of KINDS."""
    network = type(embedding_model)
    path = f"{network.__module__}.{network.__qualname__}"
    if path not in KINDS:
        raise InputError(f"{where}: the network is {path}; supported are {', '.join(KINDS)}")
    return KINDS[path]


def check(embedding_model: Any, where: str = "encoder") -> None:
    """Raise InputError, naming `where`, when this is not a network that `rewrite` reproduces."""
    kind(embedding_model, where).check(embedding_model, where)


def rewrite(embedding_model: Any, mels: int | None = None) -> nn.Module:
    """The plain network, as `Kind` describes it, that gives the same embeddings as a SpeechBrain network in eval mode.

    mels: how many it takes; not needed where the network says it. Computed in float64, stored in the network's own
    precision, all of it trainable. Raises InputError as `check`.
    """
    check(embedding_model)
    dtype = next(embedding_model.parameters()).dtype
    with torch.no_grad():
        plain = kind(embedding_model).rewrite(embedding_model, mels)
    return plain.to(dtype).requires_grad_(True)
