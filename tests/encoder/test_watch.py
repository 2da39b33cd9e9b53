import pytest
import torch
from torch import nn

from src.encoder.watch import watched


def test_what_each_call_reads_and_gives_and_no_more_after_an_error():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    first, second = torch.randn(2, 1, 2)
    with pytest.raises(RuntimeError, match="stop"), watched(network, ["", "0"]) as seen:
        for values in (first, second):
            given = network(values)
            assert seen["0"].read is values and seen["0"].given is not given and seen[""].given is given
        raise RuntimeError("stop")
    network(first)
    assert seen["0"].read is second
