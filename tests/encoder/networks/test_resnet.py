import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.encoder.networks import rewrite
from src.runtime.errors import InputError
from tests.encoder.helpers import RESNET, random_resnet
from tests.encoder.networks.test_ecapa import error


@st.composite
def networks(draw):
    """Keyword arguments of a small ResNet."""
    return {
        "input_size": draw(st.integers(1, 30)),
        "channels": [draw(st.integers(1, 6)) for _ in range(4)],
        "block_sizes": [draw(st.integers(1, 2)) for _ in range(4)],
        "strides": [draw(st.integers(1, 3)) for _ in range(4)],
        "lin_neurons": draw(st.integers(4, 12)),
    }


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(networks(), st.integers(1, 3), st.integers(1, 50), st.integers(0, 2**31))
def test_same_embeddings_as_speechbrain(network, batch, frames, seed):
    model, mels = random_resnet(network, seed), network["input_size"]
    features = torch.randn(batch, frames, mels, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert error(model.double()(features.double()), rewrite(model, mels)(features.double())) < 1e-9
        expected, model = model(features.double()), model.float()
        ours = error(expected, rewrite(model, mels)(features))
        assert ours < max(1e-5, 2 * error(expected, model(features)))


def test_the_layers_lie_in_the_groups():
    plain = rewrite(random_resnet(RESNET), 80)
    assert plain.mels == 80 and list(plain.blocks) == ["1", "2", "3", "4", "5"]
    assert not list(plain.buffers())


def test_every_parameter_learns():
    plain = rewrite(random_resnet(RESNET, mild=True).requires_grad_(False), 80)
    plain(torch.randn(3, 40, 80)).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_other_activation_is_refused():
    with pytest.raises(InputError, match=r"activation1 is LeakyReLU; only ReLU"):
        rewrite(random_resnet({**RESNET, "activation": nn.LeakyReLU}), 80)


def test_the_number_of_mels_is_needed():
    with pytest.raises(ValueError, match="mels"):
        rewrite(random_resnet(RESNET))
