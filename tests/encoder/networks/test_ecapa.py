import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.encoder.networks import rewrite
from src.runtime.errors import InputError
from tests.encoder.helpers import NETWORK, random_ecapa


@st.composite
def networks(draw):
    """Keyword arguments of a small ECAPA_TDNN, and the fewest frames that it takes."""
    scale, blocks = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    width = st.integers(1, 3).map(lambda n: n * scale * 2)
    same = draw(width)
    channels = [draw(width)] + [same] * blocks + [draw(st.integers(1, 6)) * 2]
    kernels = [draw(st.integers(1, 5))] + [draw(st.sampled_from([1, 3, 5])) for _ in range(blocks + 1)]
    dilations = [draw(st.integers(1, 4)) for _ in range(blocks + 2)]
    frames = 2 + max(d * (k - 1) // 2 for k, d in zip(kernels, dilations)) + dilations[0]
    return {
        "input_size": draw(st.sampled_from([2, 6, 10])),
        "channels": channels,
        "kernel_sizes": kernels,
        "dilations": dilations,
        "groups": [draw(st.integers(1, 2)) for _ in range(blocks + 2)],
        "res2net_scale": scale,
        "attention_channels": draw(st.integers(1, 6)),
        "se_channels": draw(st.integers(1, 6)),
        "global_context": draw(st.booleans()),
        "lin_neurons": draw(st.integers(4, 12)),
    }, frames


def error(wanted, got):
    return ((wanted - got).norm(dim=-1) / wanted.norm(dim=-1)).max().item()


def agrees(model, shape, seed, *lengths):
    """Whether the rewrite gives SpeechBrain's embeddings of random features, in either precision."""
    features = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert error(model(features).squeeze(1), rewrite(model)(features)) < 1e-5
        model, features = model.double(), features.double()
        assert error(model(features, *lengths).squeeze(1), rewrite(model)(features)) < 1e-9


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(networks(), st.integers(1, 3), st.integers(0, 40), st.integers(0, 2**31))
def test_same_embeddings_as_speechbrain(drawn, batch, longer, seed):
    network, frames = drawn
    agrees(random_ecapa(network, seed), (batch, frames + longer, network["input_size"]), seed)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.0])
def test_every_scale_of_one_sign(scale):
    model = random_ecapa(NETWORK)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.weight.data = module.weight.data.abs() * scale
    features = torch.randn(2, 30, 80)
    with torch.no_grad():
        assert error(model(features).squeeze(1), rewrite(model)(features)) < 1e-5
    # Positive scales leave no sign to multiply by at run time.
    assert bool(list(rewrite(model).buffers())) == (scale < 0)


def test_activations_of_the_large_layers_are_not_negative():
    plain = rewrite(random_ecapa(NETWORK))
    features = torch.randn(1, 30, 80)
    graph = torch.export.export(plain, (features,)).module()

    class Watch(torch.fx.Interpreter):
        seen = 0

        def run_node(self, node):
            value = super().run_node(node)
            taken = [user.target for user in node.users]
            if node.target is torch.ops.aten.conv2d.default and torch.ops.aten.relu.default in taken:
                Watch.seen += 1
            if node.target is torch.ops.aten.relu.default:
                assert (value >= 0).all()
            return value

    Watch(graph).run(features)
    assert Watch.seen == 1 + 2 * (1 + 3 + 1) + 1


def test_every_parameter_learns():
    model = random_ecapa(NETWORK)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.weight.data += (module.weight == 0).float()
    plain = rewrite(model.requires_grad_(False))
    plain(torch.randn(3, 40, 80)).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_too_few_frames_fail_as_in_speechbrain():
    model = random_ecapa(NETWORK)
    for network in (model, rewrite(model)):
        network(torch.randn(1, 4, 80))
        with pytest.raises(RuntimeError, match="Padding size"):
            network(torch.randn(1, 3, 80))


def test_other_activation_is_refused():
    with pytest.raises(InputError, match=r"blocks\.0\.activation is LeakyReLU; only ReLU"):
        rewrite(random_ecapa({**NETWORK, "activation": nn.LeakyReLU}))


def test_the_model_is_left_alone():
    model = random_ecapa(NETWORK)
    before = copy.deepcopy(model.state_dict())
    plain = rewrite(model)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
