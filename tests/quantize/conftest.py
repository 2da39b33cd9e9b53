import numpy as np
import pytest
import torch

from src.encoder.fold_batchnorm import rewrite
from src.encoder.load import prepare_speechbrain
from src.quantize import ptq

prepare_speechbrain()
FRAMES = 60


class Frames(torch.nn.Module):
    """A front end that only cuts the waveform into frames, so that tests choose the features."""

    def forward(self, waveform):
        return waveform.unflatten(1, (-1, 80))


@pytest.fixture(scope="session")
def network():
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ECAPA_TDNN(
            80,
            channels=[16, 16, 16, 48],
            kernel_sizes=[5, 3, 3, 1],
            dilations=[1, 2, 3, 1],
            attention_channels=8,
            se_channels=8,
            res2net_scale=4,
            lin_neurons=24,
        )
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.3)
    return rewrite(model.eval()).requires_grad_(False)


@pytest.fixture(scope="session")
def features():
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.normal(size=(1, FRAMES, 80)).astype("float32")) for _ in range(6)]


@pytest.fixture(scope="session")
def calibrated(network, features):
    """The graph with its observers, and the ranges that they found."""
    prepared = ptq.prepare(network, "minmax")
    ptq.calibrate_activations(prepared, features)
    return prepared, ptq.activation_ranges(prepared)


def _speech(seed, prefix):
    """(waveforms, speakers): six speakers, each a pattern with noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(6, 80))
    waveforms = [(patterns[i % 6] + 0.7 * rng.normal(size=(FRAMES, 80))).astype("float32").ravel() for i in range(24)]
    return waveforms, [f"{prefix}{i % 6}" for i in range(24)]


@pytest.fixture(scope="session")
def speech():
    return _speech(1, "s")


@pytest.fixture(scope="session")
def other_speech():
    """Of other speakers."""
    return _speech(2, "v")
