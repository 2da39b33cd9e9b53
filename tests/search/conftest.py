import pytest
import torch

from src.encoder.networks import rewrite
from src.search import structure
from tests.encoder.helpers import NETWORK, random_ecapa

# Fixtures of the small network, shared with the tests of quantisation.
from tests.quantize.conftest import calibrated, features, network, other_speech, speech  # noqa: F401

WIDE = {**NETWORK, "channels": [64, 64, 64, 96], "attention_channels": 64}


@pytest.fixture(scope="session")
def wide():
    """A network wide enough that its layers can be made thinner."""
    return rewrite(random_ecapa(WIDE)).requires_grad_(False)


def noise(mels):
    """Features of eight utterances, each longer than the one before."""
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(1, 50 + 7 * i, mels, generator=rng) for i in range(8)]


@pytest.fixture(scope="session")
def calibration():
    """Calibration speech for it."""
    return noise(80)


@pytest.fixture(scope="session")
def structures(wide, calibration):
    return structure.measure(wide, calibration)
