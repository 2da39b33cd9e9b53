"""hyperparams.yaml from a stranger: what it names is refused by name, and none of it runs."""

import time

import pytest

from src.encoder import checkpoint as files
from src.encoder import hyperparams
from src.encoder.load import load
from src.runtime.errors import InputError


def refused(folder, old, new):
    """The message for the file with `new` in the place of `old`."""
    path = folder / files.HYPERPARAMS
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        load(folder)
    message = str(caught.value)
    assert time.monotonic() - start < 20
    assert message.startswith(f"encoder.source: {folder}: hyperparams.yaml") and "\n" not in message
    return message


HOSTILE = [
    ('!apply:os.system ["touch {mark}"]', "!apply:os.system"),
    ('!new:subprocess.Popen [[touch, "{mark}"]]', "!new:subprocess.Popen"),
    ("!new:subprocess.Popen\n  args: [touch, {mark}]", "!new:subprocess.Popen"),
    ("!name:os.system", "!name:os.system"),
    ("!include:/etc/passwd", "!include:/etc/passwd"),
    ('!!python/object/apply:os.system ["touch {mark}"]', "!!python/object/apply:os.system"),
    ('!<tag:yaml.org,2002:python/object/apply:os.system> ["touch {mark}"]', "!!python/object/apply:os.system"),
    ("!%61pply:os.system [touch {mark}]", "!apply:os.system"),
    ("!unknown x", "!unknown"),
    ("!new:speechbrain.lobes.features.MFCC", "!new:speechbrain.lobes.features.MFCC"),
    ("!name:torch.nn.ReLU\n  inplace: True", "!name:torch.nn.ReLU with such a value"),
    ("!new:speechbrain.lobes.features.Fbank [80]", "!new:speechbrain.lobes.features.Fbank with such a value"),
]


@pytest.mark.parametrize("value, name", HOSTILE)
@pytest.mark.parametrize("place", ["unused", "argument"])
def test_what_would_run_is_refused_by_name(copy, tmp_path, value, name, place):
    mark = tmp_path / "ran"
    value = value.format(mark=mark)
    if place == "argument" and "\n" not in value:
        message = refused(copy, "attention_channels: 8", f"attention_channels: {value}")
    else:
        message = refused(copy, "n_mels: 80", f"unused: {value}\nn_mels: 80")
    assert f"{name} is not loaded; allowed: !ref, !copy, !name:torch.nn.ReLU, !new:" in message
    assert "line " in message and not mark.exists()


def test_speechbrains_own_loader_runs_it_for_those_who_ask(copy, tmp_path):
    mark, path = tmp_path / "ran", copy / files.HYPERPARAMS
    path.write_text(path.read_text() + f'\nunused: !apply:os.system ["touch {mark}"]\n')
    with pytest.raises(InputError, match="!apply:os.system is not loaded"):
        load(copy)
    assert not mark.exists()
    load(copy, trust=True)
    assert mark.exists()


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60))


def test_a_renamed_tag_is_refused_by_what_it_stands_for(copy):
    path = copy / files.HYPERPARAMS
    path.write_text(f"%TAG !n! !new:\n---\nunused: !n!subprocess.Popen [[touch, x]]\n{path.read_text()}")
    with pytest.raises(InputError, match="line 3: !new:subprocess.Popen is not loaded"):
        load(copy)


@pytest.mark.parametrize(
    "text, said",
    [
        (LAUGHS, "an alias (*) is not loaded"),
        ("a: &a {b: c}\n<<: *a\n", "an alias (*) is not loaded"),
        ("a: &a [*a]\n", "an alias (*) is not loaded"),
        ("[" * 100_000, "65,536 are the most that is read"),
        ("a: " + "[" * 20_000 + "\n", "not valid YAML"),
        ("? [a]\n: b\n", "not valid YAML"),
        ("", "modules, pretrainer, embedding_model missing"),
        ("\x00", "not valid YAML"),
    ],
)
def test_bombs_and_nonsense(copy, text, said):
    (copy / files.HYPERPARAMS).write_text(text)
    with pytest.raises(InputError) as caught:
        load(copy)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["embedding_model", "classifier"])
@pytest.mark.parametrize(
    "path",
    [
        "!ref <pretrained_path>/../../secret.ckpt",
        "../secret.ckpt",
        "/etc/passwd",
        "https://elsewhere.example/weights.ckpt",
        "somebody/else/weights.ckpt/..",
        "C:secret.ckpt",
    ],
)
def test_a_path_that_leads_out_of_the_checkpoint(copy, file, path):
    message = refused(copy, f"!ref <pretrained_path>/{file}.ckpt", path)
    assert f"pretrainer.paths.{file}: {path.split(' ')[-1]} leads out of the checkpoint" in message


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("dilations: [1, 2, 3, 1]", "dilations: [1, 2, 3, 1", "not valid YAML"),
        ("pretrainer:", "pretrained:", "pretrainer missing"),
        (
            "lin_neurons: 24",
            "lin_neurons: 1000000",
            "embedding_model.lin_neurons: Input should be less than or equal to",
        ),
        ("lin_neurons: 24", "lin_nuerons: 24", "embedding_model.lin_nuerons: Extra inputs are not permitted"),
        ("lin_neurons: 24", "lin_neurons: !ref <nowhere>", "!ref <nowhere>` is not `!ref <key>`"),
        ("n_mels: 80", "n_mels: !ref <n_mels>", "a chain of more than 8 references"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <n_mels>\n  hop_length: .nan", "compute_features.hop_length"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <n_mels>\n  win_length: 50", "must not fall"),
        ("n_mels: !ref <n_mels>", "n_mels: !ref <n_mels>\n  f_min: 9000", "must rise"),
        ("  se_channels: 8", '  se_channels: 8\n  "a\\n\\e[2J": 1', "embedding_model.a\\n\\x1b[2J: Extra inputs"),
        ("  embedding_model: !ref <embedding_model>", "  embedding_model: !ref <classifier>", "not speechbrain.lobes"),
        ("  mean_var_norm: !ref <mean_var_norm>", "", "modules.mean_var_norm is NoneType"),
    ],
)
def test_what_is_not_understood_is_named(copy, old, new, said):
    assert said in refused(copy, old, new)


def test_the_published_layout_gives_its_numbers(shared):
    found = hyperparams.read(shared / "hub/root/models/speechbrain/spkrec-ecapa-voxceleb/hyperparams.yaml", "x")
    assert found == (
        {"n_mels": 80},
        {"norm_type": "sentence", "std_norm": False},
        {
            "input_size": 80,
            "channels": [1024, 1024, 1024, 1024, 3072],
            "kernel_sizes": [5, 3, 3, 3, 1],
            "dilations": [1, 2, 3, 4, 1],
            "attention_channels": 128,
            "lin_neurons": 192,
        },
        "embedding_model.ckpt",
    )


def test_links_are_followed_and_other_than_regular_files_are_not(copy, tmp_path):
    weights = copy / "embedding_model.ckpt"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    assert load(copy)
    for target in ("/dev/zero", "nowhere", "embedding_model.ckpt"):
        weights.unlink()
        weights.symlink_to(target)
        with pytest.raises(InputError, match="embedding_model.ckpt is not a regular file"):
            load(copy)
