"""The structure of a smaller network: at which frames it is computed, how many channels its layers have, and their ranks.

All that can be left out is measured in one unit, the mean square by which the embedding moves, so that one price for a
multiplication decides over all of it.
"""

import copy
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from src.encoder.networks.ecapa import PlainEcapa
from src.search import aggregation, factorise, moments, widths
from src.search.factorise import MULTIPLE, Shape, Spectrum, shapes
from src.search.frames import ALL, Frames, choices, fewer
from src.search.moments import FRAMES, Components
from src.search.price import MULTIPLICATIONS, Price

WIDTHS = (1 / 2, 1 / 4)  # shares of the channels of each `Width` of the network
CHANNELS = (1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of the aggregation layer, as shares
# Layers that these go into or come from; the latter give as many outputs as before.
AGGREGATED = ("mfa", "attention.x", "attention.context", "attention.out")
READERS = ("attention.x", "attention.context")


class Structure(NamedTuple):
    """width: share of the channels of each `Width`; channels: of the aggregation layer, None for all; frames: that are computed
    and pooled; ranks: {layer: rank}, of layers that became two."""

    width: float
    channels: int | None
    frames: Frames
    ranks: dict[str, int]


WHOLE = (1.0, None)  # width and channels
EVERYTHING = Structure(*WHOLE, ALL, {})


@dataclass(frozen=True)
class _Network:
    """The network with some of its channels, what that moves the embedding by, its layers' spectra, and what each rank of
    them moves it by."""

    network: nn.Module
    error: float
    spectra: dict[str, Spectrum]
    moved: dict[str, torch.Tensor]


class Structures:
    """The networks that can be made of one, with fewer operations.

    networks: by width and channels; frames: {frames: what computing only these moves the embedding by}; price: of what is
    left.
    """

    def __init__(
        self,
        networks: Mapping[tuple[float, int | None], _Network],
        frames: Mapping[Frames, float],
        price: Price = MULTIPLICATIONS,
    ):
        self.networks = networks
        self.frames = frames
        aggregated = getattr(networks[WHOLE].network, "mfa", None)
        aggregated = aggregated.out_channels if aggregated else 1
        bare = copy.deepcopy(networks[WHOLE].network).to("meta")
        layers = {some: shapes(fewer(bare, some), FRAMES) for some in frames}
        self._bases = {}
        for (width, channels), each in networks.items():
            weights = {name: each.network.get_submodule(name).weight for name in layers[ALL]}
            for some, error in frames.items():
                own = {name: shape.of(weights[name]) for name, shape in layers[some].items()}
                rest = price.rest((channels or aggregated) / aggregated, some)
                self._bases[width, channels, some] = _Base(each, own, each.error + error, price, rest)

    def priced(self, price: Price) -> "Structures":
        """The same networks, chosen by another price."""
        return Structures(self.networks, self.frames, price)

    @property
    def spectra(self) -> dict[str, Spectrum]:
        """Of the layers of the whole network."""
        return self.networks[WHOLE].spectra

    def of_share(self, share: float) -> Structure:
        """The structure that leaves at most `share` of the multiplications, or whatever is to be small, and moves the
        embedding least; the least that can be had where the share is out of reach.

        By Lagrange, for every number of channels and of frames: what is left out of each layer weighs what it does to the
        embedding against one price for a multiplication, the lowest at which few enough are left.
        """
        if share >= 1:
            return EVERYTHING
        most = share * self._bases[EVERYTHING[:3]].size
        best = math.inf, math.inf, EVERYTHING
        for (width, channels, some), base in sorted(self._bases.items(), key=lambda each: each[1].error):
            if best[0] <= most and base.error >= best[1]:  # nor does any that follows
                break
            error, size, ranks = base.within(most)
            best = min(
                best, (max(size, most), error, Structure(width, channels, some, ranks)), key=lambda each: each[:2]
            )
        return best[2]

    def cost(self, structure: Structure) -> float:
        """What a structure that `of_share` gave costs, at the price."""
        return self._bases[structure[:3]].cost(structure.ranks)

    def error(self, structure: Structure) -> float:
        """The mean square by which a structure that `of_share` gave is predicted to move the embedding, at length one:
        twice 1 - cosine."""
        base, moved = self._bases[structure[:3]], self.networks[structure[:2]].moved
        return base.error + sum(moved[name][rank].item() for name, rank in structure.ranks.items())

    def network(self, structure: Structure) -> nn.Module:
        """The network of a structure that `of_share` gave."""
        each = self.networks[structure[:2]]
        network = fewer(each.network, structure.frames)
        for name, rank in structure.ranks.items():
            network.set_submodule(name, factorise.product(network.get_submodule(name), each.spectra[name], rank))
        return network


class _Base:
    """What ranks are chosen for: error, what the channels and the frames move the embedding by; size, what it costs; and of
    every multiple of MULTIPLE as a layer's rank, 0 for the layer as it is, [layers, multiples], what that moves the embedding
    by and what cost it saves."""

    def __init__(self, each: _Network, layers: dict[str, Shape], error: float, price: Price, rest: float):
        costs = {name: price.layer(name, shape) for name, shape in layers.items()}
        self.error, self.size, self.layers = error, sum(costs.values()) + rest, list(each.spectra)
        shape = len(self.layers), max((len(spectrum.ranks()) for spectrum in each.spectra.values()), default=1)
        self.moved, self.saved = np.full(shape, np.inf), np.zeros(shape)
        for index, (name, spectrum) in enumerate(each.spectra.items()):
            for place, rank in enumerate(spectrum.ranks()):
                halves = layers[name].product(rank) if rank else [layers[name]]
                self.moved[index, place] = each.moved[name][rank] if rank else 0
                self.saved[index, place] = costs[name] - sum(price.layer(name, half) for half in halves)

    def within(self, most: float) -> tuple[float, float, dict[str, int]]:
        """(error, cost, {layer: rank}) of the ranks that move the embedding least at a cost of at most `most`; of the cheapest
        ranks where that is out of reach."""
        low, high = -100.0, 20.0  # logarithms of the price
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._at(math.exp(middle))[1] <= most else (middle, high)
        return self._at(math.exp(high))

    def _at(self, price):
        chosen = np.argmin(self.moved - price * self.saved, axis=1)
        moved, saved = (np.take_along_axis(each, chosen[:, None], 1).sum() for each in (self.moved, self.saved))
        ranks = {name: int(place) * MULTIPLE for name, place in zip(self.layers, chosen) if place}
        return self.error + moved, self.size - saved, ranks

    def cost(self, ranks: dict[str, int]) -> float:
        """What is left with these ranks, at the price."""
        return self.size - sum(self.saved[self.layers.index(name), rank // MULTIPLE] for name, rank in ranks.items())


def measure(network: nn.Module, features: Sequence[torch.Tensor]) -> Structures:
    """The Structures of a plain network, by what calibration speech, each [1, time, mels], says of it; without any, only
    the network itself."""
    if not features:
        return Structures({WHOLE: _Network(network, 0.0, {}, {})}, {ALL: 0.0})
    measured = moments.measure(network, features)
    inputs = widths.measure(network, features) if network.widths() else {}
    orders = widths.orders(network, inputs, measured)
    found = {}
    for width in (1.0, *WIDTHS) if inputs else (1.0,):
        narrow = network if width == 1 else widths.reduce(network, inputs, orders, width)
        said = measured if width == 1 else moments.measure(narrow, features)
        found |= {(width, channels): each for channels, each in _aggregated(narrow, said, features).items()}
    networks = {(*key, ALL): each.network for key, each in found.items()}
    networks |= {(*WHOLE, some): fewer(network, some) for some in choices(network)}
    errors = _distances(network, networks, features)
    return Structures(
        {key: replace(each, error=each.error + errors[*key, ALL]) for key, each in found.items()},
        {some: errors[*WHOLE, some] for some in choices(network)},
    )


def _aggregated(network, measured, features):
    """{channels of the aggregation layer: _Network}, whose error is by how much it is underestimated on these features."""
    networks, optimism, channels = {None: network}, {None: 0.0}, {None: None}
    spectra = {(None, name): spectrum for name, spectrum in _spectra(network, measured).items()}
    if isinstance(network, PlainEcapa):
        aggregated = aggregation.measure(network, features)
        for count in _counts(network.mfa.out_channels):
            networks[count], optimism[count] = aggregation.reduce(network, aggregated, count)
            channels[count] = kept = aggregated.largest(count)
            own = {name: measured[name] for name in AGGREGATED if name in measured}
            own = {name: each if name in READERS else each.of(kept) for name, each in own.items()}
            spectra |= {(count, name): spectrum for name, spectrum in _spectra(networks[count], own).items()}
    # A linear layer has one vector an utterance, whose errors nothing adds up.
    moved: dict[Hashable, torch.Tensor] = {
        (count, name): moments.left_out(spectrum.errors.double())
        for (count, name), spectrum in spectra.items()
        if isinstance(network.get_submodule(name), nn.Linear)
    }
    components: dict[Hashable, Components] = {
        (count, name): Components(
            name, None if name in READERS else channels[count], spectrum.mean, spectrum.onto, spectrum.back
        )
        for (count, name), spectrum in spectra.items()
        if (count, name) not in moved
    }
    moved |= moments.movements(network, components, features)

    def of(count: int | None, table: dict) -> dict:
        """What is said of its layers: those before the aggregation layer are the whole network's."""
        return {
            name: each
            for (own, name), each in table.items()
            if own == count or (own is None and name not in AGGREGATED)
        }

    return {
        count: _Network(each, optimism[count], of(count, spectra), of(count, moved)) for count, each in networks.items()
    }


def _counts(channels):
    return sorted({round(channels * share / MULTIPLE) * MULTIPLE for share in CHANNELS} - {0, channels})


def _distances(network, others, features):
    """{(width, channels, frames): mean square distance of another network's embedding from the network's}, at length one,
    over the first FRAMES of each utterance; those of one width and one step have the same trunk."""
    squares = dict.fromkeys(others, 0.0)
    with torch.no_grad():
        for utterance in tqdm(features, "structures", disable=None, leave=False):
            trunks = {}
            whole = F.normalize(network(utterance[:, :FRAMES]), dim=-1)
            for key, other in others.items():
                width, _, some = key
                if (width, some.step) not in trunks:
                    trunks[width, some.step] = other.trunk(utterance[:, :FRAMES])
                embedding = F.normalize(other.head(trunks[width, some.step]), dim=-1)
                squares[key] += (embedding - whole).square().sum().item()
    return {key: total / len(features) for key, total in squares.items()}


def _spectra(network, measured):
    layers = {name: network.get_submodule(name) for name in measured}
    spectra = {name: factorise.spectrum(measured[name], layer.weight[0].numel()) for name, layer in layers.items()}
    # Where nothing varies, as linear layers do over one utterance, nothing is known.
    return {name: spectrum for name, spectrum in spectra.items() if spectrum.largest_rank and spectrum.errors[0] > 0}
