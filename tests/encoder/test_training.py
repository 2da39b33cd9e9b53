"""What SpeechBrain's own training leaves behind is an encoder."""

import io
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from src.encoder import checkpoint, hyperparams, load
from src.encoder.labels import training_speakers
from src.runtime.errors import InputError
from tests.encoder.helpers import babble, cosine
from tests.encoder.training import RECIPE, SPEAKERS
from tests.workspace import python, run_all, workspace

WEIGHTS = "embedding_model.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The output folder of a training of two epochs."""
    folder = tmp_path_factory.mktemp("training") / "1986"
    output = python(folder.parent, "-m", "tests.encoder.training", str(folder))
    assert output.returncode == 0, output.stdout + output.stderr
    return folder


@pytest.fixture
def experiment(trained, tmp_path):
    """The folder, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "experiment"))


def checkpoints(folder):
    """The folders of checkpoints, the oldest first."""
    saved = folder.glob("save/CKPT+*")
    return sorted(saved, key=lambda path: yaml.safe_load((path / "CKPT.yaml").read_text())["unixtime"])


def same_weights(classifier, file):
    stored, loaded = torch.load(file), classifier.mods["embedding_model"].state_dict()
    return stored.keys() == loaded.keys() and all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_the_folder_is_as_the_recipe_leaves_it(trained):
    text = (trained / checkpoint.HYPERPARAMS).read_text()
    assert "*id0" in text and "&id0" in text and "!apply:torch.manual_seed" in text and "pretrainer" not in text
    assert len(checkpoints(trained)) == 2 and not (trained / WEIGHTS).exists()


def test_the_newest_checkpoint_is_taken_or_the_one_that_is_named(trained):
    older, newer = checkpoints(trained)
    for source, file in ((trained, newer), (trained / "save", newer), (newer, newer), (older, older)):
        classifier = load.load(source)
        assert same_weights(classifier, file / WEIGHTS)
        assert Path(classifier.hparams.checkpoint) == file / WEIGHTS
        assert training_speakers(str(source)) == set(SPEAKERS)
    assert not same_weights(load.load(trained), older / WEIGHTS)


def test_the_newest_is_what_the_checkpoints_say_not_the_times_of_copies(experiment):
    older, newer = checkpoints(experiment)
    (older / "CKPT.yaml").touch()
    renamed = newer.rename(newer.with_name("CKPT+best"))
    assert same_weights(load.load(experiment), renamed / WEIGHTS)
    (renamed / WEIGHTS).unlink()  # as a training that was interrupted leaves it
    assert same_weights(load.load(experiment), older / WEIGHTS)
    (older / WEIGHTS).unlink()
    with pytest.raises(InputError, match=f"experiment: {WEIGHTS} is missing"):
        load.load(experiment)


def test_same_embeddings_as_the_trained_modules(trained):
    from hyperpyyaml import load_hyperpyyaml

    with open(trained / checkpoint.HYPERPARAMS) as file:
        modules = load_hyperpyyaml(file)["modules"]
    network = modules["embedding_model"].eval()
    network.load_state_dict(torch.load(checkpoints(trained)[-1] / WEIGHTS))
    waveform = torch.from_numpy(babble(1, batch=2))
    with torch.no_grad():
        theirs = network(modules["mean_var_norm"](modules["compute_features"](waveform), torch.ones(2)))[:, 0]
        front_end, plain = load.plain(trained)
        assert cosine(theirs, plain(front_end(waveform))) > 0.99999


PRETRAINER = """
pretrained_path: {path}
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  collect_in: !ref <save_folder>
  loadables: {{embedding_model: !ref <embedding_model>}}
  paths: {{embedding_model: {file}}}
"""


def fine_tuned(folder, path, file):
    """hyperparams.yaml with a pretrainer, its references as they are."""
    text = RECIPE.read_text().replace("!PLACEHOLDER", "D:\\x")
    (folder / checkpoint.HYPERPARAMS).write_text(text + PRETRAINER.format(path=path, file=file))


@pytest.mark.parametrize("separator", ["/", "\\"])
@pytest.mark.parametrize("top", ["/home/me/results/1986/", "C:/Users/me/my results/1986/", "../1986/", ""])
def test_a_fine_tuned_file_names_a_checkpoint_wherever_it_was_made(experiment, top, separator):
    older, _ = checkpoints(experiment)
    path = f"{top}save/{older.name}".replace("/", separator)
    fine_tuned(experiment, path, f"!ref <pretrained_path>/{WEIGHTS}")
    assert same_weights(load.load(experiment), older / WEIGHTS)
    fine_tuned(experiment, "elsewhere", f"{path}{separator}{WEIGHTS}")
    assert same_weights(load.load(experiment), older / WEIGHTS)


def test_a_checkpoint_that_is_named_but_elsewhere_is_what_the_training_began_with(experiment):
    fine_tuned(experiment, "../voxceleb/save/CKPT+2023-01-01+10-00-00+00", f"!ref <pretrained_path>/{WEIGHTS}")
    assert same_weights(load.load(experiment), checkpoints(experiment)[-1] / WEIGHTS)


def text_of(experiment, old="", new=""):
    text = RECIPE.read_text().replace("!PLACEHOLDER", "D:\\x")
    assert old in text
    (experiment / checkpoint.HYPERPARAMS).write_text(text.replace(old, new) if old else text)


def test_the_normalisation_is_found_by_its_class_where_just_one_fits(experiment):
    text_of(experiment, "mean_var_norm", "normalizer")
    assert load.load(experiment).mods["mean_var_norm"].norm_type == "sentence"
    path = experiment / checkpoint.HYPERPARAMS
    emb = "\nmean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization\n  norm_type: global\n"
    path.write_text(path.read_text() + emb)
    assert load.load(experiment).mods["mean_var_norm"].norm_type == "sentence"
    path.write_text(path.read_text() + emb.replace("mean_var_norm_emb", "other"))
    with pytest.raises(InputError, match="mean_var_norm missing; could be normalizer or other$"):
        load.load(experiment)
    text_of(experiment, "InputNormalization", "Other")
    with pytest.raises(
        InputError, match=r"line \d+: mean_var_norm is !new:.*Other, which is not loaded; allowed: !new:"
    ):
        load.load(experiment)


def test_references_into_mappings_and_parts_outside_of_modules(experiment):
    text_of(experiment, "input_size: !ref <n_mels>", "input_size: !ref <sizes[mels][large]>")
    path = experiment / checkpoint.HYPERPARAMS
    path.write_text(path.read_text().replace("modules:", "parts:") + "\nsizes: {mels: {large: 40}}\n")
    assert load.load(experiment)


@pytest.mark.parametrize("mels", [24, 40, 60, 80])
def test_any_number_of_mels_with_references_and_without(mels, tmp_path):
    from hyperpyyaml import resolve_references

    text = RECIPE.read_text().replace("!PLACEHOLDER", "x").replace("n_mels: 40", f"n_mels: {mels}")
    path = tmp_path / checkpoint.HYPERPARAMS
    for given in (text, resolve_references(io.StringIO(text)).getvalue()):
        path.write_text(given)
        read = hyperparams.read(path, "x")
        assert read.features["n_mels"] == read.network["input_size"] == mels and read.kind.title == "ECAPA-TDNN"


def test_what_the_front_end_lacks_is_refused_before_the_weights_are_read(experiment):
    for saved in checkpoints(experiment):
        (saved / WEIGHTS).write_bytes(b"damaged")
    for old, new, message in (
        ("deltas: False", "deltas: True", "Fbank with deltas is not supported"),
        (
            "n_mels: !ref <n_mels>",
            "n_mels: 24",
            r"compute_features gives 24 mels, embedding_model takes 40 \(input_size",
        ),
        ("norm_type: sentence", "norm_type: global", "mean_var_norm is global"),
        ("left_frames: !ref <left_frames>", "n_fft: 401", "Fbank with an odd n_fft is not supported"),
        ("left_frames: !ref <left_frames>", "win_length: 0", "compute_features.win_length: Input should be greater"),
    ):
        text_of(experiment, old, new)
        with pytest.raises(InputError, match=message):
            load.load(experiment)


@pytest.mark.slow
def test_baseline_and_ptq_run_on_it(trained, tmp_path):
    changes = {
        "data": {"speakers": 16, "utterances_per_speaker": 4, "max_seconds": 3.0},
        "evaluate": {"bootstrap": 100},
        "ptq": {"utterances": 6},
        "encoder": {"source": str(trained)},
    }
    folder = workspace(tmp_path / "run", changes)
    run_all(folder, "link_data", "sample_data", "baseline", "ptq")
    assert (folder / "models/ptq.onnx").is_file()
