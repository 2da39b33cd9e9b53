"""What a kind of network is to the rest of the project."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from src.runtime.errors import InputError

ACTIVATIONS = {"torch.nn.ReLU": nn.ReLU, "torch.nn.LeakyReLU": nn.LeakyReLU}
Channels = Annotated[int, Field(ge=1, le=8192)]
Small = Annotated[int, Field(ge=1, le=64)]  # a kernel, a dilation, a stride, a number of groups or of blocks


class Arguments(BaseModel):
    """What a class of SpeechBrain takes, with bounds; the defaults are SpeechBrain's, which fills them in itself."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NetworkArguments(Arguments):
    """`activation`, which each class has, is a key of ACTIVATIONS."""

    device: str = "cpu"  # of the training


@dataclass(frozen=True)
class Width:
    """Channels of a plain network that are one thing where it is made narrower: outputs of layers that are added to one
    another, channel by channel, or are parts of another's output that are.

    channels: how many; outputs: {name of a convolution, or of a buffer that goes with one: how many runs of them it gives}; readers:
    {name of a convolution: how many runs of them it reads}.
    """

    channels: int
    outputs: dict[str, int]
    readers: dict[str, int]


@dataclass(frozen=True)
class Kind:
    """One kind of network.

    name: in options; title: for people; path: of SpeechBrain's class; arguments: that the class takes; mels: which of them is the number
    of mels; check: raises InputError, naming its second argument, for a network that `rewrite` cannot reproduce;
    rewrite: the plain network of a SpeechBrain network and its number of mels (None where the network itself says), in
    float64.

    A plain network takes features [batch, time, mels] and gives embeddings [batch, dim]. It has an attribute `mels`,
    and all its layers with weights, `nn.Conv2d` or `nn.Linear`, lie in submodules called layer0, blocks (an
    `nn.ModuleDict`), mfa, attention and fc, or in some of these: the groups whose weights have bits of their own. layer0
    is first, and time the last dimension of what a convolution reads. It is its method `head` of its method `trunk`: where
    it has an attribute `pooled`, that names the first convolution of `head`, from which on no frame looks at another. Its
    method `widths` gives the Widths of `trunk` that can be made narrower.
    """

    name: str
    title: str
    path: str
    arguments: type[NetworkArguments]
    mels: str
    check: Callable[[Any, str], None]
    rewrite: Callable[[Any, int | None], nn.Module]

    @property
    def speechbrain(self) -> type[nn.Module]:
        """SpeechBrain's class; `src.encoder.load.prepare_speechbrain` comes first."""
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def check_activations(named: Iterable[tuple[str, nn.Module]], allowed: tuple[type[nn.Module], ...], where: str) -> None:
    """Raise InputError when one of these activations, (name, module), is not of the allowed types."""
    for name, module in named:
        if type(module) not in allowed:
            kind, names = type(module).__name__, " and ".join(each.__name__ for each in allowed)
            raise InputError(f"{where}: {name} is {kind}; only {names} can be rewritten exactly")
