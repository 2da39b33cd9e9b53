import torch
from torch import nn

from src.search.least_squares import Sums


def test_what_others_say_is_folded_into_the_weights():
    rng = torch.Generator().manual_seed(0)
    kept = torch.randn(1, 3, 1, 400, generator=rng)
    said = 2 * kept[:, :1] - kept[:, 2:] + 0.5  # a fourth channel says nothing of its own
    values = torch.cat([kept, said], dim=1)
    sums = Sums()
    for part in values.split(100, dim=3):
        sums.add(part)
    layer = nn.Conv2d(4, 5, (1, 3))
    weight, shift = sums.inputs().predict(layer.weight, torch.tensor([0, 1, 2]))
    fewer = nn.functional.conv2d(kept.double(), weight, layer.bias + shift)
    torch.testing.assert_close(fewer, layer(values).double(), atol=1e-3, rtol=1e-3)


def test_silence_predicts_its_own_constant():
    sums = Sums()
    sums.add(torch.full((1, 2, 1, 50), 3.0))
    weight, shift = sums.inputs().predict(torch.ones(1, 2, 1, 1), torch.tensor([0]))
    torch.testing.assert_close(weight.sum() * 3 + shift, torch.tensor([6.0], dtype=torch.float64))
