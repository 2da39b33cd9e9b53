"""What layers read and give while a network is called."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn


class Seen(NamedTuple):
    """The first argument of a module's last call, and what it gave."""

    read: torch.Tensor
    given: torch.Tensor


@contextmanager
def watched(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Seen]]:
    """{name: Seen} of these modules of a network, filled anew by every call of it inside the context."""
    seen: dict[str, Seen] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, arguments: tuple, output: torch.Tensor) -> None:
            seen[name] = Seen(arguments[0], output)

        return network.get_submodule(name).register_forward_hook(note)

    hooks = [watch(name) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
