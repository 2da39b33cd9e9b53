import copy as copies
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from src.encoder.load import load
from src.runtime.errors import InputError
from tests.encoder.helpers import NETWORK, babble, saved


def edit(folder, old, new):
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_folder_read_here_and_by_speechbrain(checkpoint, classifier):
    model = classifier.mods["embedding_model"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert classifier.encode_batch(torch.from_numpy(babble(1, batch=2))).shape == (2, 1, 24)
    trusted = load(checkpoint, trust=True)
    waveform = torch.from_numpy(babble(1, batch=2))
    assert torch.equal(classifier.encode_batch(waveform), trusted.encode_batch(waveform))
    assert classifier.hparams.checkpoint == trusted.hparams.checkpoint


def test_nothing_is_written_and_what_takes_no_part_in_the_embedding_is_not_read(copy, tmp_path, monkeypatch):
    for file in ("classifier.ckpt", "mean_var_norm_emb.ckpt", "label_encoder.txt"):
        (copy / file).unlink()
    edit(copy, "pretrained_path: ", "pretrained_path: somebody/elsewhere # ")
    monkeypatch.chdir(tmp_path)
    assert load("copy").mods["embedding_model"].fc.conv.out_channels == 24
    assert os.listdir(tmp_path) == ["copy"]
    assert sorted(os.listdir(copy)) == ["embedding_model.ckpt", "hyperparams.yaml"]


def test_weights_stored_as_fp16_become_float32(classifier, tmp_path):
    network = classifier.mods["embedding_model"]
    half = load(saved(tmp_path / "half", NETWORK, network, torch.float16)).mods["embedding_model"]
    for name, value in network.state_dict().items():
        assert torch.equal(half.state_dict()[name], value.half().to(value.dtype)), name


@pytest.mark.parametrize("file", ["embedding_model.ckpt", "hyperparams.yaml"])
def test_missing_file(copy, file):
    (copy / file).unlink()
    with pytest.raises(InputError, match=f"copy: {file} is missing"):
        load(copy)


def test_weights_of_another_name_beside_a_decoy(copy, classifier):
    weights = torch.load(copy / "embedding_model.ckpt")
    (copy / "embedding_model.ckpt").rename(copy / "averaged.ckpt")
    torch.save({name: torch.zeros_like(value) for name, value in weights.items()}, copy / "embedding_model.ckpt")
    edit(copy, "embedding_model.ckpt", "averaged.ckpt")
    loaded = load(copy)
    for name, value in classifier.mods["embedding_model"].state_dict().items():
        assert torch.equal(loaded.mods["embedding_model"].state_dict()[name], value), name
    assert Path(loaded.hparams.checkpoint).name == "averaged.ckpt"


def test_a_trusted_checkpoint_that_speechbrain_cannot_load(copy):
    (copy / "classifier.ckpt").unlink()
    with pytest.raises(InputError, match="SpeechBrain cannot load it: "):
        load(copy, trust=True)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("norm_type: sentence", "norm_type: global", r"mean_var_norm is global; only norm_type: sentence"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <n_mels>\n  deltas: True", r"Fbank with deltas is not supported"),
        (
            "lin_neurons: 24",
            "lin_neurons: 12",
            r"does not fit .*: fc.conv.weight is float32 \[24, 96, 1\], not .*\[12,",
        ),
        ("  se_channels: 8", "  se_channels: 8\n  global_context: False", r"does not fit hyperparams.yaml"),
        ("  se_channels: 8", "  se_channels: 8\n  groups: [1, 3, 1, 1]", r"hyperparams.yaml: embedding_model: "),
        ("channels: [16, 16, 16, 48]", "channels: [8192, 8192, 8192, 8192]", r"parameters; 300,000,000 are the most"),
    ],
)
def test_unfit_hyperparams(copy, old, new, message):
    edit(copy, old, new)
    with pytest.raises(InputError, match=message) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


class Runs:
    """Pickled, it runs a command when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_runs_code_is_refused_by_name(copy, tmp_path, monkeypatch):
    mark, path = tmp_path / "ran", copy / "embedding_model.ckpt"
    state = torch.load(path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for content in (Runs(mark), state | {"fc.conv.bias": Runs(mark)}):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InputError, match="embedding_model.ckpt: it holds posix.system, which would run code"):
                load(copy)
    path.write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(InputError, match="embedding_model.ckpt: "):
        load(copy)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # it does run code
    assert mark.exists()


def damaged(change):
    """What spoils a file of weights by `change` of its mapping."""
    return lambda path: torch.save(change(torch.load(path)), path)


def holding(**values):
    """What puts `values` into a file of weights; a name is that of the layer fc, or one of no layer."""
    names = {"bias": "fc.conv.bias", "weight": "fc.conv.weight"}
    return damaged(lambda state: state | {names.get(key, key): value for key, value in values.items()})


def deflated(path):
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)


def overlapping(path):
    """Two hundred entries of a zip file that are one and the same megabyte."""
    torch.save({"a": torch.zeros(2**18)}, path)
    with zipfile.ZipFile(path, "a") as file:
        whole = max(file.infolist(), key=lambda entry: entry.file_size)
        for number in range(200):
            entry = copies.copy(whole)
            entry.filename += str(number)
            file.filelist.append(entry)
        file._didModify = True


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: path.write_bytes(b"not weights"), "damaged, or not a file of tensors"),
        (lambda path: path.write_bytes(path.read_bytes()[:5_000]), "damaged, or not a file of tensors"),
        (deflated, "compressed, which torch never does"),
        (overlapping, "its parts are larger than the whole"),
        (damaged(lambda state: [1, 2]), "not a mapping of names to tensors"),
        (holding(bias="text"), "not a mapping of names to tensors"),
        (damaged(lambda state: dict(list(state.items())[1:])), r"1 parameters missing or unknown \(blocks.0.conv"),
        (holding(extra=torch.zeros(1)), r"1 parameters missing or unknown \(extra\)"),
        (holding(**{"a\n\x1b[2J" + "x" * 10**6: torch.zeros(1)}), r"\(a\\n\\x1b\[2Jx{94}\)"),
        (holding(bias=torch.tensor([torch.inf] + [0.0] * 23)), "fc.conv.bias holds values that"),
        (holding(bias=torch.zeros(24, dtype=torch.int64)), "int64 .*, not float32"),
        (holding(bias=torch.zeros(1).expand(2**40)), "fc.conv.bias is"),
        (holding(bias=torch.zeros(24, device="meta")), "fc.conv.bias is not a plain tensor"),
        (holding(bias=torch.zeros(24).to_sparse()), "fc.conv.bias is not a plain tensor"),
        (holding(bias=torch.nested.nested_tensor([torch.zeros(2)])), "fc.conv.bias is not a plain tensor"),
    ],
)
def test_damaged_weights(copy, spoil, message):
    spoil(copy / "embedding_model.ckpt")
    with pytest.raises(InputError, match=message) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_parameters_that_ask_for_gradients_are_numbers_and_a_counter_may_be_absent(copy):
    damaged(
        lambda state: {name: torch.nn.Parameter(value) for name, value in state.items() if value.is_floating_point()}
    )(copy / "embedding_model.ckpt")
    model = load(copy).mods["embedding_model"]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.asp_bn.norm.num_batches_tracked == 0


@pytest.mark.parametrize("source", ["no/such/folder", "./folder"])
def test_missing_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        load(source)
