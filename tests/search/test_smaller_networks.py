import pytest
import torch

from src.encoder import networks
from src.search import structure
from src.search.factorise import multiplications
from tests.encoder.helpers import random_resnet, random_xvector

WIDE = {
    "xvector": lambda: random_xvector({"in_channels": 24, "tdnn_channels": [96, 96, 96, 96, 160], "lin_neurons": 20}),
    "resnet": lambda: random_resnet(
        {"input_size": 24, "channels": [32, 32, 48, 48], "block_sizes": [1, 1, 1, 1], "lin_neurons": 20}
    ),
}


@pytest.mark.parametrize("kind", WIDE)
def test_every_kind_of_network_can_be_made_smaller(kind):
    network = networks.rewrite(WIDE[kind](), 24).requires_grad_(False)
    features = [torch.randn(1, 90, 24, generator=torch.manual_seed(i)) for i in range(6)]
    structures = structure.measure(network, features)
    moved = []
    for share in (0.9, 0.6):
        student = structures.network(structures.of_share(share))
        assert share - 0.15 < multiplications(student, 150) / multiplications(network, 150) <= share + 0.01
        with torch.no_grad():
            before, after = (torch.cat([each(x) for x in features]) for each in (network, student))
        moved.append(((after - before).square().mean() / before.var(0).mean()).item())
    assert 0 < moved[0] < moved[1] < 0.5
