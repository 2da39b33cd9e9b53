import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.encoder.networks import rewrite
from src.runtime.errors import InputError
from tests.encoder.helpers import XVECTOR, random_xvector
from tests.encoder.networks.test_ecapa import agrees


@st.composite
def networks(draw):
    """Keyword arguments of a small Xvector, and the fewest frames that it takes."""
    layers = draw(st.integers(1, 5))
    kernels = [draw(st.sampled_from([1, 3, 5])) for _ in range(layers)]
    dilations = [draw(st.integers(1, 3)) for _ in range(layers)]
    return {
        "in_channels": draw(st.sampled_from([2, 6, 10])),
        "activation": draw(st.sampled_from([nn.LeakyReLU, nn.ReLU])),
        "tdnn_blocks": layers,
        "tdnn_channels": [draw(st.integers(1, 12)) for _ in range(layers)],
        "tdnn_kernel_sizes": kernels,
        "tdnn_dilations": dilations,
        "lin_neurons": draw(st.integers(4, 12)),
    }, 2 + max(d * (k - 1) // 2 for k, d in zip(kernels, dilations))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(networks(), st.integers(1, 3), st.integers(0, 40), st.integers(0, 2**31))
def test_same_embeddings_as_speechbrain(drawn, batch, longer, seed):
    network, frames = drawn
    shape = batch, frames + longer, network["in_channels"]
    agrees(random_xvector(network, seed), shape, seed, torch.ones(batch))


def test_the_layers_lie_in_the_groups():
    plain = rewrite(random_xvector(XVECTOR))
    assert plain.mels == 24 and list(plain.blocks) == ["1", "2", "3"] and plain.mfa.out_channels == 48
    assert not list(plain.buffers())  # no sign is left to multiply by at run time


def test_every_parameter_learns():
    plain = rewrite(random_xvector(XVECTOR, mild=True).requires_grad_(False))
    features = torch.randn(3, 40, 24)
    features[:, :, 3] = 0
    plain(features).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    plain.zero_grad()
    plain(torch.zeros(1, 40, 24)).square().sum().backward()  # nothing deviates from its mean
    assert all(parameter.grad.isfinite().all() for parameter in plain.parameters())


def test_other_activation_is_refused():
    with pytest.raises(InputError, match=r"blocks\.1 is Tanh; only ReLU and LeakyReLU"):
        rewrite(random_xvector({**XVECTOR, "activation": nn.Tanh}))
