"""Multiply-accumulates of the PyTorch encoder, layer by layer, as fvcore counts them."""

from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis

from src.encoder.watch import watched

COLUMNS = ("layer", "type", "output", "parameters", "gmacs", "share")


@dataclass(frozen=True)
class Layer:
    name: str
    type: str
    output: tuple[int, ...]
    parameters: int
    macs: int


def count(model: torch.nn.Module, features: torch.Tensor) -> list[Layer]:
    """The layers of an embedding model that multiply, in the order in which the model holds them.

    model: takes `features`, a tensor [batch, frames, mels], alone. The count is fvcore's: what it calls a
    flop is one multiply-accumulate for a convolution or a matrix product, and a BatchNorm is two for each
    element. Activations, sums, pooling and the other elementwise parts are not counted. The layers add up to
    fvcore's total.
    """
    modules = dict(model.named_modules())
    with watched(model, modules) as seen, torch.no_grad():
        model(features)
    analysis = FlopCountAnalysis(model, features).unsupported_ops_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        macs = analysis.by_module()
    layers = []
    for name, module in modules.items():
        multiplied = macs[name] - sum(macs[f"{name}.{child}".lstrip(".")] for child, _ in module.named_children())
        if multiplied:
            kind, parameters = type(module).__name__, sum(p.numel() for p in module.parameters())
            layers.append(
                Layer(_short(name, modules), kind, tuple(seen[name].given.shape), parameters, int(multiplied))
            )
    return layers


def _short(name, modules):
    """SpeechBrain wraps each Conv1d and BatchNorm1d in a module of its own: `fc.conv` is known as `fc`."""
    wrapper = name.rpartition(".")[0]
    return wrapper if wrapper and len(list(modules[wrapper].children())) == 1 else name


def rows(layers: list[Layer]) -> list[tuple]:
    """The layers as rows of COLUMNS: `output` is the shape of the output, `share` that of all MACs."""
    total = sum(layer.macs for layer in layers)
    return [
        (
            layer.name,
            layer.type,
            "x".join(map(str, layer.output)),
            layer.parameters,
            f"{layer.macs / 1e9:.9f}",
            f"{layer.macs / total:.6f}",
        )
        for layer in layers
    ]
