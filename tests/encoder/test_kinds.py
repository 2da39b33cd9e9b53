"""Every kind of network, in the layouts in which they are published, through the same functions."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from src.encoder import networks
from src.encoder.export import export_onnx
from src.encoder.load import load, plain
from src.runtime.errors import InputError
from tests.encoder.helpers import (
    NETWORK,
    RESNET,
    XVECTOR,
    babble,
    cosine,
    random_ecapa,
    random_resnet,
    random_xvector,
    saved,
)

MADE = {"ecapa": (random_ecapa, NETWORK), "xvector": (random_xvector, XVECTOR), "resnet": (random_resnet, RESNET)}


def small(folder, name):
    """A folder in SpeechBrain's pretrained layout with a small random network."""
    make, arguments = MADE[name]
    return saved(folder, arguments, make(arguments))


@pytest.mark.parametrize("name", MADE)
def test_folder_read_here_and_by_speechbrain(tmp_path, name):
    folder = small(tmp_path / name, name)
    classifier, trusted = load(folder), load(folder, trust=True)
    assert networks.kind(classifier.mods["embedding_model"]).name == name
    waveform = torch.from_numpy(babble(1, batch=2))
    theirs = trusted.encode_batch(waveform)
    assert torch.equal(classifier.encode_batch(waveform), theirs)
    front_end, network = plain(folder)
    with torch.no_grad():
        assert cosine(theirs.reshape(2, -1), network(front_end(waveform))) > 0.99999


@pytest.mark.parametrize("name", ["xvector", "resnet"])
def test_exported_file_gives_the_embeddings_of_encode_batch(tmp_path, name):
    folder = small(tmp_path / name, name)
    path = tmp_path / "fp32.onnx"
    export_onnx(nn.Sequential(*plain(folder)), path)
    session, classifier = onnxruntime.InferenceSession(path), load(folder)
    for seconds in (0.3, 1.2345, 3):
        for batch in (1, 3):
            waveform = babble(seconds, seed=batch, batch=batch)
            theirs = classifier.encode_batch(torch.from_numpy(waveform)).reshape(batch, -1)
            assert cosine(theirs, session.run(["embedding"], {"waveform": waveform})[0]) > 0.99999, (seconds, batch)


def test_an_x_vector_repeats(tmp_path):
    folder = small(tmp_path / "xvector", "xvector")
    waveform = torch.from_numpy(babble(1))
    assert torch.equal(load(folder).encode_batch(waveform), load(folder).encode_batch(waveform))


PUBLISHED = """\
n_mels: {mels}
device: 'cpu'
pretrained_path: speechbrain/{name}
out_n_neurons: 107
emb_dim: {dim}
left_frames: 0
right_frames: 0
deltas: False

compute_features: !new:speechbrain.lobes.features.Fbank
  n_mels: !ref <n_mels>
  left_frames: !ref <left_frames>
  right_frames: !ref <right_frames>
  deltas: !ref <deltas>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
  norm_type: sentence
  std_norm: False

embedding_model: !new:{network}
  lin_neurons: !ref <emb_dim>

classifier: !new:speechbrain.lobes.models.Xvector.Classifier
  input_shape: [null, null, !ref <emb_dim>]
  activation: !name:torch.nn.LeakyReLU
  lin_blocks: 1
  lin_neurons: 512
  out_neurons: !ref <out_n_neurons>

mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
  norm_type: global
  std_norm: False

modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  mean_var_norm_emb: !ref <mean_var_norm_emb>
  embedding_model: !ref <embedding_model>
  classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
    label_encoder: !ref <label_encoder>
  paths:
    embedding_model: !ref <pretrained_path>/embedding_model.ckpt
    classifier: !ref <pretrained_path>/classifier.ckpt
    label_encoder: !ref <pretrained_path>/label_encoder.txt
"""
# {repository: (kind, mels, dimensions, other arguments)}
REPOSITORIES = {
    "spkrec-xvect-voxceleb": (
        "xvector",
        24,
        512,
        """
  in_channels: !ref <n_mels>
  activation: !name:torch.nn.LeakyReLU
  tdnn_blocks: 5
  tdnn_channels: [512, 512, 512, 512, 1500]
  tdnn_kernel_sizes: [5, 3, 3, 1, 1]
  tdnn_dilations: [1, 2, 3, 1, 1]""",
    ),
    "spkrec-resnet-voxceleb": (
        "resnet",
        80,
        256,
        """
  input_size: !ref <n_mels>
  channels: [128, 128, 256, 256]
  strides: [1, 2, 2, 2]
  block_sizes: [3, 4, 6, 3]""",
    ),
    "lang-id-voxlingua107-ecapa": (
        "ecapa",
        60,
        256,
        """
  input_size: !ref <n_mels>
  channels: [1024, 1024, 1024, 1024, 3072]
  kernel_sizes: [5, 3, 3, 3, 1]
  dilations: [1, 2, 3, 4, 1]
  attention_channels: 128""",
    ),
}


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_published_layouts_load_at_full_size(tmp_path, repository):
    name, mels, dim, arguments = REPOSITORIES[repository]
    kind = networks.NAMES[name]
    text = PUBLISHED.format(name=repository, mels=mels, dim=dim, network=kind.path + arguments)
    (tmp_path / "hyperparams.yaml").write_text(text)
    # SpeechBrain's defaults are the published sizes, but for ECAPA-TDNN.
    full = {"channels": [1024] * 4 + [3072], "lin_neurons": dim} if name == "ecapa" else {}
    torch.save(kind.speechbrain(**{kind.mels: mels, **full}).state_dict(), tmp_path / "embedding_model.ckpt")
    classifier = load(tmp_path)
    embedding = classifier.encode_batch(torch.from_numpy(babble(0.3)))
    assert embedding.numel() == dim and np.isfinite(embedding.numpy()).all()


@pytest.mark.parametrize(
    "repository, old, new, message",
    [
        ("spkrec-xvect-voxceleb", "LeakyReLU\n  tdnn", "Tanh\n  tdnn", "activation: !name:torch.nn.Tanh is not loaded"),
        (
            "spkrec-xvect-voxceleb",
            "tdnn_blocks: 5",
            "tdnn_blocks: 6",
            "tdnn_channels has fewer values than tdnn_blocks",
        ),
        ("spkrec-resnet-voxceleb", "[3, 4, 6, 3]", "[3, 4, 6]", "block_sizes: List should have at least 4 items"),
        ("spkrec-resnet-voxceleb", "n_mels: 80", "n_mels: 60", None),
        ("lang-id-voxlingua107-ecapa", "ECAPA_TDNN.ECAPA_TDNN", "ECAPA_TDNN.Other", "ECAPA_TDNN.Other, which is not"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, repository, old, new, message):
    name, mels, dim, arguments = REPOSITORIES[repository]
    text = PUBLISHED.format(name=repository, mels=mels, dim=dim, network=networks.NAMES[name].path + arguments)
    assert old in text
    (tmp_path / "hyperparams.yaml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message or "embedding_model.ckpt is missing"):
        load(tmp_path)
