import pytest
import torch

from src.encoder.networks import rewrite
from src.search import least_squares, moments, widths
from src.search.factorise import multiplications
from tests.encoder.helpers import NETWORK, RESNET, XVECTOR, random_ecapa, random_resnet, random_xvector
from tests.search.conftest import noise
from tests.search.test_aggregation import distance

WIDE_XVECTOR = {**XVECTOR, "tdnn_channels": [32, 32, 32, 32, 48]}


@pytest.fixture(scope="module")
def xvector():
    return rewrite(random_xvector(WIDE_XVECTOR)).requires_grad_(False)


@pytest.fixture(scope="module")
def xvector_speech():
    return noise(XVECTOR["in_channels"])


@pytest.fixture(scope="module", params=["ecapa", "xvector"])
def either(request, wide, calibration, xvector, xvector_speech):
    """(plain network, calibration speech)."""
    return (wide, calibration) if request.param == "ecapa" else (xvector, xvector_speech)


def narrowed(network, speech, share):
    inputs = widths.measure(network, speech)
    return widths.reduce(network, inputs, widths.orders(network, inputs, moments.measure(network, speech)), share)


def test_all_channels_change_nothing_and_fewer_are_fewer_everywhere(either):
    network, speech = either
    assert distance(narrowed(network, speech, 1), network, speech) < 1e-9
    half = narrowed(network, speech, 0.5)
    assert [width.channels for width in half.widths()] == [width.channels // 2 for width in network.widths()]
    assert multiplications(half, 60) < 0.9 * multiplications(network, 60)
    assert half(speech[0]).shape == network(speech[0]).shape and half.mels == network.mels


def test_channels_that_others_say_are_dropped_for_free(monkeypatch, xvector_speech):
    """Of two halves that are alike, one says the other: the layers that read both lose nothing."""
    monkeypatch.setattr(widths, "ROUNDS", 64)  # one goes at a time
    network = rewrite(random_xvector(WIDE_XVECTOR, mild=True)).requires_grad_(False)
    width = network.widths()[1]
    network.widths = lambda: [width]
    (layer,) = (network.get_submodule(name) for name in width.outputs)
    for tensor in (layer.weight.data, layer.bias.data):
        tensor[width.channels // 2 :] = tensor[: width.channels // 2]
    assert distance(narrowed(network, xvector_speech, 0.5), network, xvector_speech) < 1e-5


def test_least_squares_make_up_for_what_is_dropped(either, monkeypatch):
    network, speech = either
    fitted = distance(narrowed(network, speech, 0.5), network, speech)
    monkeypatch.setattr(least_squares, "RIDGE", 1e9)  # nothing but the mean is made up for
    assert fitted < 0.8 * distance(narrowed(network, speech, 0.5), network, speech)


def test_what_goes_moves_the_embedding_less_than_what_stays_would(either):
    network, speech = either
    inputs = widths.measure(network, speech)
    orders = widths.orders(network, inputs, moments.measure(network, speech))
    assert all(sorted(order.tolist()) == list(range(width.channels)) for order, width in zip(orders, network.widths()))
    chosen, others = (
        distance(widths.reduce(network, inputs, each, 0.5), network, speech)
        for each in (orders, [order.flip(0) for order in orders])
    )
    assert chosen < 0.8 * others


def test_networks_that_cannot_be_narrowed_say_so():
    assert rewrite(random_resnet(RESNET), 80).widths() == []
    grouped = rewrite(random_ecapa({**NETWORK, "groups": [1, 2, 1, 1]}))
    assert grouped.widths() == []


def test_over_speech_that_does_not_vary_something_goes_all_the_same(either):
    network, speech = either
    half = narrowed(network, [torch.zeros_like(speech[0])], 0.5)
    assert half(speech[1]).isfinite().all()
