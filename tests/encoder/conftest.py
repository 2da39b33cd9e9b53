import shutil
from pathlib import Path

import pytest

from src.encoder.load import load
from tests.encoder.helpers import NETWORK, random_ecapa, saved


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder in SpeechBrain's layout with a small random ECAPA-TDNN."""
    return saved(tmp_path_factory.mktemp("checkpoint") / "small", NETWORK, random_ecapa(NETWORK))


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint, to be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture(scope="session")
def classifier(checkpoint):
    return load(checkpoint)
