import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.encoder.load import load
from src.encoder.save import save_checkpoint
from src.errors import InputError
from tests.encoder.helpers import NETWORK, babble

FILES = [
    "classifier.ckpt", "embedding_model.ckpt", "hyperparams.yaml", "label_encoder.txt",
    "mean_var_norm_emb.ckpt",
]


@pytest.fixture
def copy(checkpoint, tmp_path):
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(folder, old, new):
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_folder(classifier):
    model = classifier.mods["embedding_model"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert classifier.encode_batch(torch.from_numpy(babble(1, batch=2))).shape == (2, 1, 24)
    assert classifier.hparams.label_encoder.decode_torch(torch.tensor([2])) == ["c"]


def test_nothing_is_written(copy, tmp_path, monkeypatch):
    edit(copy, "pretrained_path: ", "pretrained_path: somebody/elsewhere # ")
    monkeypatch.chdir(tmp_path)
    load("copy")
    assert os.listdir(tmp_path) == ["copy"]
    assert sorted(os.listdir(copy)) == FILES


def test_weights_stored_as_fp16_become_float32(classifier, tmp_path):
    mods = classifier.mods
    save_checkpoint(tmp_path / "half", NETWORK, mods["embedding_model"], mods["classifier"], ["a", "b", "c"],
                    dtype=torch.float16)
    half = load(tmp_path / "half").mods["embedding_model"]
    for name, value in mods["embedding_model"].state_dict().items():
        assert torch.equal(half.state_dict()[name], value.half().to(value.dtype)), name


@pytest.mark.parametrize("file", FILES)
def test_missing_file(copy, file):
    (copy / file).unlink()
    with pytest.raises(InputError, match=f"copy: {file} is missing"):
        load(copy)


@pytest.mark.parametrize("old, new, message", [
    ("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector", r"embedding_model is .*Xvector.Xvector, not an ECAPA-TDNN"),
    ("lobes.features.Fbank", "lobes.features.MFCC", r"line 6: !new:speechbrain.*MFCC is not loaded"),
    ("out_n_neurons: 3", "out_n_neurons: !apply:os.getpid []", r"line 4: !apply:os.getpid is not loaded"),
    ("norm_type: sentence", "norm_type: global", r"mean_var_norm is global; only norm_type: sentence"),
    ("n_mels: !ref <n_mels>", "n_mels: !ref <n_mels>\n  deltas: True", r"Fbank with deltas is not supported"),
    ("lin_neurons: 24", "lin_neurons: 12", r"damaged or does not fit hyperparams.yaml: .*size mismatch"),
    ("  se_channels: 8", "  se_channels: 8\n  global_context: False", r"does not fit hyperparams.yaml"),
    ("dilations: [1, 2, 3, 1]", "dilations: [1, 2, 3, 1", r"not valid YAML"),
    ("pretrainer:", "pretrained:", r"pretrainer missing"),
])
def test_unfit_hyperparams(copy, old, new, message):
    edit(copy, old, new)
    with pytest.raises(InputError, match=message) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_damaged_weights(copy):
    (copy / "embedding_model.ckpt").write_bytes(b"not weights")
    with pytest.raises(InputError, match="a file is damaged"):
        load(copy)


def test_parameters_that_a_file_lacks_are_not_left_random(copy):
    path = copy / "embedding_model.ckpt"
    state = torch.load(path)
    del state["mfa.conv.conv.weight"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"1 parameters missing or unknown \(mfa.conv.conv.weight\)"):
        load(copy)


@pytest.mark.parametrize("source", ["no/such/folder", "./folder", "folder", "/folder"])
def test_missing_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        load(source)


def test_unreachable_hub(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="speaker/model: no such folder, and the hub cannot be reached"):
        load("speaker/model", "main")


HUB = """
from src.encoder.load import load
from src.errors import InputError
model = load("speechbrain/spkrec-ecapa-voxceleb", "eac27266f68caa806381260bd44ace38b136c76a")
print(sum(p.numel() for p in model.mods["embedding_model"].parameters()))
try:
    load("speechbrain/absent")
except InputError as error:
    print(error)
"""


def test_hub(shared, tmp_path):
    command = [sys.executable, shared / "hub/serve.py", shared / "hub/root", "--", sys.executable, "-c", HUB]
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [
        "20767552",
        "encoder source speechbrain/absent: no such folder, and no such repository on the hub",
    ], done.stderr
