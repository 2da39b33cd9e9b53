import numpy as np
import pytest
import torch

from src.encoder.export import export_onnx
from src.encoder.frontend import FrontEnd
from src.encoder.networks import rewrite
from src.quantize import ptq
from tests.encoder.helpers import NETWORK, random_ecapa

FRAMES = 60


class Frames(torch.nn.Module):
    """A front end that only cuts the waveform into frames, so that tests choose the features."""

    hop = 80

    def forward(self, waveform):
        return waveform.unflatten(1, (-1, 80))


def exported(network, path):
    """An ONNX file of a network behind SpeechBrain's front end."""
    from speechbrain.lobes.features import Fbank

    export_onnx(torch.nn.Sequential(FrontEnd(Fbank(n_mels=80)), network), path)
    return path


@pytest.fixture(scope="session")
def network():
    return rewrite(random_ecapa(NETWORK, mild=True)).requires_grad_(False)


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
