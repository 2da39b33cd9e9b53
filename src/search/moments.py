"""What calibration speech says of each convolution: how its outputs vary, and what an error in them does to the embedding."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

FRAMES = 200  # of each utterance
THIN = 8  # outputs for each value that they are computed from


@dataclass(frozen=True)
class Moments:
    """Of the outputs of a convolution over calibration speech, before its ReLU.

    mean [channels]; covariance [channels, channels]; sensitivity [channels, channels]: the mean of J'J a frame, J being
    the Jacobian of the embedding, scaled to length one, with respect to the outputs of that frame. An error e of the
    outputs moves the embedding by a square of about e' sensitivity e: the diagonal of Fisher-weighted factorisation (Hsu
    et al., "Language model compression with weighted low-rank factorization", ICLR 2022), here with all its directions.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    sensitivity: torch.Tensor

    def of(self, channels: torch.Tensor) -> "Moments":
        """Those of some of the channels, int [n], alone."""
        square = torch.meshgrid(channels, channels, indexing="ij")
        return Moments(self.mean[channels], self.covariance[square], self.sensitivity[square])


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions, by name, in which every output reads every input, and which a product of two could make
    cheaper: not those that are thin already."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.out_channels <= THIN * layer.weight[0].numel()
    }


def measure(network: nn.Module, features: Iterable[torch.Tensor], seed: int = 0) -> dict[str, Moments]:
    """{name: Moments} of the network's `convolutions`.

    features: iterable of [1, time, mels], calibration speech, of which the first FRAMES frames are used; seed: of the
    random projections of the embedding whose gradients give J'J (one an utterance: E[vv'] = 1, so that E[J'vv'J] = J'J).
    """
    layers = convolutions(network)
    sums = {name: _Sums(layer.out_channels) for name, layer in layers.items()}
    outputs: dict[str, torch.Tensor] = {}
    hooks = [layer.register_forward_hook(_keep(outputs, name)) for name, layer in layers.items()]
    random = torch.Generator().manual_seed(seed)
    try:
        for utterance in tqdm(features, "moments", disable=None, leave=False):
            embedding = F.normalize(network(utterance[:, :FRAMES].detach().requires_grad_()), dim=-1)
            projection = torch.randn(embedding.shape, generator=random)
            gradients = torch.autograd.grad((embedding * projection).sum(), list(outputs.values()))
            for (name, values), gradient in zip(outputs.items(), gradients):
                sums[name].add(_frames(values.detach()), _frames(gradient))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: each.moments() for name, each in sums.items()}


def _keep(outputs, name):
    def hook(_module, _inputs, output):
        outputs[name] = output

    return hook


def _frames(values):
    """[1, channels, height, time] -> [frames, channels]."""
    return values.movedim(1, -1).flatten(0, -2)


class _Sums:
    """Sums over frames of a layer's outputs, of their products, and of those of their gradients."""

    def __init__(self, channels):
        self.frames = 0
        self.first = torch.zeros(channels)
        self.products, self.gradients = torch.zeros(2, channels, channels)

    def add(self, values, gradient):
        self.frames += len(values)
        self.first += values.sum(0)
        self.products.addmm_(values.T, values)
        # A gradient is the smaller, the more frames an utterance has: by how many is made up for.
        self.gradients.addmm_(gradient.T, gradient, alpha=len(values))

    def moments(self):
        mean = self.first / self.frames
        covariance = self.products / self.frames - mean[:, None] * mean
        return Moments(mean, covariance, self.gradients / self.frames)
