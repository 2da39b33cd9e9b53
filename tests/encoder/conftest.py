import shutil
from pathlib import Path

import pytest
import torch

from src.encoder.load import load
from src.encoder.save import save_checkpoint
from tests.encoder.helpers import NETWORK, random_ecapa


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The networks here are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder in SpeechBrain's layout with a small random ECAPA-TDNN."""
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    save_checkpoint(folder, NETWORK, random_ecapa(NETWORK), Classifier(24, out_neurons=3), ["a", "b", "c"])
    return folder


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint, to be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture(scope="session")
def classifier(checkpoint):
    return load(checkpoint)
