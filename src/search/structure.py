"""The structure of a smaller network: which channels its aggregation layer has, and the ranks of its convolutions.

All that can be left out is measured in one unit, the mean square by which the embedding moves, so that one price for a
multiplication decides over all of it.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from src.encoder.networks.ecapa import PlainEcapa
from src.search import aggregation, factorise, moments
from src.search.factorise import MULTIPLE, Spectrum, multiplications, positions

CHANNELS = (1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16)  # of the aggregation layer, as shares
FRAMES = 200  # of the utterance whose multiplications are counted
AGGREGATED = ("mfa", "attention.x", "attention.out")  # layers that these go into or come from


class Structure(NamedTuple):
    """channels: of the aggregation layer, None for all; ranks: {layer: rank}, of layers that became two."""

    channels: int | None
    ranks: dict[str, int]


@dataclass(frozen=True)
class _Network:
    """The network with some channels of its aggregation layer, what that moves the embedding by, and its layers'
    spectra."""

    network: nn.Module
    error: float
    spectra: dict[str, Spectrum]


class Structures:
    """The networks that can be made of one, with fewer operations."""

    def __init__(self, networks: Mapping[int | None, _Network]):
        self.networks = networks
        self._sizes = {channels: multiplications(each.network, FRAMES) for channels, each in networks.items()}
        self._options = {channels: _options(each) for channels, each in networks.items()}

    @property
    def spectra(self) -> dict[str, Spectrum]:
        """Of the layers of the whole network."""
        return self.networks[None].spectra

    def of_share(self, share: float) -> Structure:
        """The structure that leaves at most `share` of the multiplications and moves the embedding least; the least that
        can be had where the share is out of reach.

        By Lagrange: everything that can be left out weighs what it does to the embedding against one price for a
        multiplication, the lowest at which few enough are left.
        """
        if share >= 1:
            return Structure(None, {})
        low, high = -100.0, 0.0  # logarithms of the price
        most = share * self._sizes[None]
        for _ in range(60):
            middle = (low + high) / 2
            _, left = self._cheapest(math.exp(middle))
            low, high = (low, middle) if left <= most else (middle, high)
        return self._cheapest(math.exp(high))[0]

    def _cheapest(self, price):
        """(Structure, multiplications) of the least sum of error and price."""
        best = None
        for channels, each in self.networks.items():
            error, left, ranks = each.error, self._sizes[channels], {}
            for name, options in self._options[channels].items():
                rank, moved, saved = options[np.argmin(options[:, 1] - price * options[:, 2])]
                error, left = error + moved, left - saved
                if rank:
                    ranks[name] = int(rank)
            if best is None or error + price * left < best[0]:
                best = error + price * left, Structure(channels, ranks), left
        assert best
        return best[1:]

    def network(self, structure: Structure) -> nn.Module:
        """The network of a structure that `of_share` gave."""
        each = self.networks[structure.channels]
        network = copy.deepcopy(each.network)
        for name, rank in structure.ranks.items():
            network.set_submodule(name, factorise.product(network.get_submodule(name), each.spectra[name], rank))
        return network


def _options(each):
    """{layer: [[rank, error, multiplications that are saved]]}: everything that can be chosen."""
    places = positions(each.network, FRAMES)
    return {
        name: np.array(
            [
                (
                    rank,
                    error,
                    places[name] * (spectrum.size - rank * (spectrum.inputs + spectrum.outputs)) if rank else 0,
                )
                for rank, error in spectrum.ranks()
            ]
        )
        for name, spectrum in each.spectra.items()
    }


def measure(network: nn.Module, features: Sequence[torch.Tensor]) -> Structures:
    """The Structures of a plain network, by what calibration speech, each [1, time, mels], says of it; without any, only
    the network itself."""
    if not features:
        return Structures({None: _Network(network, 0.0, {})})
    measured = moments.measure(network, features)
    networks: dict[int | None, _Network] = {None: _Network(network, 0.0, _spectra(network, measured))}
    if isinstance(network, PlainEcapa):
        aggregated = aggregation.measure(network, features)
        aggregated_layers = {name: measured[name] for name in AGGREGATED if name in measured}
        whole = network.mfa.out_channels
        for count in sorted({round(whole * share / MULTIPLE) * MULTIPLE for share in CHANNELS} - {0, whole}):
            reduced, error = aggregation.reduce(network, aggregated, count)
            kept = aggregated.largest(count)
            others = {name: each for name, each in networks[None].spectra.items() if name not in AGGREGATED}
            own = {name: each if name == "attention.x" else each.of(kept) for name, each in aggregated_layers.items()}
            networks[count] = _Network(reduced, error, others | _spectra(reduced, own))
    return Structures(networks)


def _spectra(network, measured):
    layers = {name: network.get_submodule(name) for name in measured}
    spectra = {name: factorise.spectrum(measured[name], layer.weight[0].numel()) for name, layer in layers.items()}
    return {name: spectrum for name, spectrum in spectra.items() if spectrum.largest_rank}
