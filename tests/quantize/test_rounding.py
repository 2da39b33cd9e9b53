import numpy as np
import pytest
import torch
from torch import nn

from src.quantize import ptq, qat
from src.quantize.quantizer import GROUPS, clipped
from src.quantize.rounding import _read, round_weight, rounded

BITS = {**dict.fromkeys(GROUPS, 8), "blocks": 4, "fc": 4}


def nearest(weight, largest):
    step = clipped(weight, largest) / largest
    return (weight / step).round().clamp(-largest, largest) * step


def test_a_layers_outputs_lose_less_than_by_rounding_each_weight():
    rng = np.random.default_rng(0)
    mixed = torch.from_numpy(rng.normal(size=(64, 64)).astype("float32"))
    read = torch.from_numpy(rng.normal(size=(2000, 64)).astype("float32")) @ mixed
    weight = torch.from_numpy(rng.normal(size=(16, 64)).astype("float32"))
    ours = round_weight(weight, read.T @ read / len(read), 7)
    errors = [((one - weight) @ read.T).square().mean().item() for one in (ours, nearest(weight, 7))]
    assert errors[0] < 0.6 * errors[1]
    # Independent inputs say nothing of one another: what is rounded is each weight.
    assert torch.allclose(round_weight(weight, torch.eye(64), 7), nearest(weight, 7))
    assert round_weight(weight, torch.zeros(64, 64), 7).isfinite().all()


def test_what_a_layer_reads_is_padded_as_it_pads():
    values = torch.randn(1, 3, 1, 12, generator=torch.Generator().manual_seed(0))
    for mode in ("reflect", "zeros"):
        layer = nn.Conv2d(3, 4, (1, 5), stride=(1, 2), dilation=(1, 2), padding=(0, 4), padding_mode=mode)
        given = _read(layer, values) @ layer.weight.flatten(1).T + layer.bias
        torch.testing.assert_close(given, layer(values)[0, :, 0].T)


@pytest.fixture(scope="module")
def few(network, features):
    return rounded(network, features, BITS)


def test_only_weights_of_few_bits_move_and_they_are_on_their_grid(network, few, features):
    assert rounded(network, features, dict.fromkeys(GROUPS, 7)) is network
    before, after = dict(network.named_parameters()), dict(few.named_parameters())
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    layers = {name for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    assert moved == [
        name for name in after if name.split(".")[0] in ("blocks", "fc") and name.removesuffix(".weight") in layers
    ]
    for name in moved:
        weight = after[name].flatten(1)
        assert torch.allclose(nearest(weight, 7), weight, atol=1e-6 * weight.abs().max().item())


def test_the_embedding_moves_less(network, few, features):
    def distance(one):
        graph = ptq.prepare(one, "minmax", BITS)
        ptq.calibrate_activations(graph, features)
        student = qat.fake_quantise(graph, ptq.activation_ranges(graph))
        with torch.no_grad():
            return np.mean([1 - torch.cosine_similarity(student(x), network(x)).item() for x in features])

    assert distance(few) < 0.7 * distance(network)
