"""hyperparams.yaml from a stranger: none of what it names runs, and what the embedding needs of it is refused by name."""

import re
import time
import tracemalloc

import pytest

from src.encoder import checkpoint as files
from src.encoder import hyperparams
from src.encoder.load import load
from src.encoder.networks import ecapa
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
    ("!name:torch.nn.ReLU {{inplace: True}}", "!name:torch.nn.ReLU with arguments"),
    ("!new:speechbrain.lobes.features.Fbank [80]", "!new:speechbrain.lobes.features.Fbank"),
    ('!new:torch.nn.Sequential [!apply:os.system ["touch {mark}"], !ref <n_mels>]', "!new:torch.nn.Sequential"),
    ("!apply:os.system\n  <<: {{command: touch {mark}}}", "!apply:os.system"),
    ("!applyref:os.system [!ref <!apply:os.system>]", "!applyref:os.system"),
    ("!new:a.B &anchor [!name:c.d [*anchored]]", "!new:a.B"),
]
ANCHORED = "anchored: &anchored !apply:os.remove [hyperparams.yaml]\n"


@pytest.mark.parametrize("value, name", HOSTILE)
def test_what_would_run_is_not_looked_at_where_the_embedding_does_not_need_it(copy, tmp_path, value, name):
    mark, path = tmp_path / "ran", copy / files.HYPERPARAMS
    for text in (path.read_text(), "classifier: !new:x.Y\n  deeper: [{old: !ref <unused>}]\n" + path.read_text()):
        path.write_text(f"{ANCHORED}unused: {value.format(mark=mark)}\n{text}")
        assert load(copy).mods["embedding_model"].fc.conv.out_channels == 24
    assert not mark.exists() and path.exists()


@pytest.mark.parametrize("value, name", HOSTILE)
def test_what_would_run_is_refused_by_name_where_the_embedding_needs_it(copy, tmp_path, value, name):
    mark, value = tmp_path / "ran", value.format(mark=tmp_path / "ran")
    text = (copy / files.HYPERPARAMS).read_text()
    (copy / files.HYPERPARAMS).write_text(f"{ANCHORED}unused: {value}\n{text}")
    message = refused(copy, "attention_channels: 8", "attention_channels: !ref <unused>")
    assert re.search(
        rf"line \d+: embedding_model.attention_channels: {re.escape(name)}( is not loaded|, which)", message
    )
    assert not mark.exists()
    message = refused(copy, "  embedding_model: !ref <embedding_model>", "  embedding_model: !ref <unused>")
    assert "embedding_model is !" in message and "which is not loaded; allowed: !new:speechbrain.lobes.mod" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    "part", ["compute_features: !new:speechbrain.lobes.features.Fbank", "mean_var_norm: !new:speechbrain.processing"]
)
def test_another_class_of_a_part_that_the_embedding_needs_is_refused_by_name(copy, part):
    message = refused(copy, part, part.partition(":")[0] + ": !new:os.Popen")
    assert re.search(r"line \d+: \w+ is !new:os.Popen\S*, which is not loaded; allowed: !new:speechbrain", message)


def test_speechbrains_own_loader_runs_it_for_those_who_ask(copy, tmp_path):
    mark, path = tmp_path / "ran", copy / files.HYPERPARAMS
    path.write_text(path.read_text() + f'\nunused: !apply:os.system ["touch {mark}"]\n')
    load(copy)
    assert not mark.exists()
    load(copy, trust=True)
    assert mark.exists()


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60))


def doubling(line):
    return "m0: &m0 {x: 1}\n" + "".join(line.format(i + 1, i) for i in range(60))


def test_a_renamed_tag_is_refused_by_what_it_stands_for(copy):
    path = copy / files.HYPERPARAMS
    text = path.read_text().replace("attention_channels: 8", "attention_channels: !n!subprocess.Popen [[touch, x]]")
    path.write_text(f"%TAG !n! !new:\n---\n{text}")
    with pytest.raises(InputError, match=r"line \d+: embedding_model\S+: !new:subprocess.Popen is not loaded"):
        load(copy)


NESTED = "a: " + "[" * 10_000 + "]" * 10_000 + "\n"
DEEP = "a: &a !new:x.Y\n" + "".join(" " * i + "b:\n" for i in range(1, 300))


@pytest.mark.parametrize(
    "text, said",
    [
        (LAUGHS, "aliases (*) that stand for more than 100,000 values are not loaded"),
        (doubling("m{0}: &m{0} {{<<: [*m{1}, *m{1}]}}\n"), "aliases (*) that stand for more than 100,000 values"),
        (
            doubling("m{0}: &m{0} !new:a.B {{a: *m{1}, b: *m{1}}}\n"),
            "aliases (*) that stand for more than 100,000 values",
        ),
        ("a: &a [*a]\n", "line 1: an alias (*) that holds itself is not loaded"),
        ("a: &a !new:x.Y {b: *a}\n", "line 1: an alias (*) that holds itself is not loaded"),
        ("a: &a {<<: *a}\n", "line 1: an alias (*) that holds itself is not loaded"),
        ("a: *b\n", "not valid YAML: found undefined alias"),
        ("a: &a {b: c}\n<<: *a\n", "compute_features missing; nothing else is !new:speechbrain"),
        ("[" * 100_000, "65,536 are the most that is read"),
        ("a: [1, 2]\n" * 10_000_000, "65,536 are the most that is read"),
        (NESTED, "not valid YAML: nested too deeply"),
        ("a: " + "!x {b: " * 8_000, "not valid YAML: nested too deeply"),
        (DEEP, "not valid YAML: nested too deeply"),
        ("? [a]\n: b\n", "not valid YAML"),
        ("", "compute_features missing"),
        ("\x00", "not valid YAML"),
    ],
    ids=range(16),
)
def test_bombs_and_nonsense(copy, text, said):
    (copy / files.HYPERPARAMS).write_text(text)
    if "&" in text:
        tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        load(copy)
    assert time.monotonic() - start < 20 and tracemalloc.get_traced_memory()[1] < 5e7
    tracemalloc.stop()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_stand_for_what_they_name(copy):
    path = copy / files.HYPERPARAMS
    text = path.read_text().replace("embedding_model: !new", "embedding_model: &id001 !new")
    text = text.replace("  embedding_model: !ref <embedding_model>", "  embedding_model: *id001")
    text = text.replace("  attention_channels: 8", "  <<: *sizes\n  attention_channels: *eight")
    path.write_text(
        "deep: !new:a.B {c: [&eight 8, &sizes {se_channels: 8}]}\n" + text.replace("  se_channels: 8\n", "")
    )
    assert load(copy).mods["embedding_model"].fc.conv.out_channels == 24


def test_a_value_that_only_looks_like_a_date_is_a_text(copy):
    path = copy / files.HYPERPARAMS
    path.write_text("begun: 2024-02-31\n" + path.read_text())
    assert load(copy)


@pytest.mark.parametrize(
    "path, said",
    [
        ("!ref <pretrained_path>/../../secret.ckpt", "secret.ckpt is missing"),
        ("../secret.ckpt", "secret.ckpt is missing"),
        ("{outside}/secret.ckpt", "secret.ckpt is missing"),
        ("https://elsewhere.example/secret.ckpt", "secret.ckpt is missing"),
        ("somebody/else/weights.ckpt/..", "paths.embedding_model: somebody/else/weights.ckpt/.. names no file"),
        ("C:secret.ckpt", "paths.embedding_model: C:secret.ckpt names no file"),
        ("!apply:os.getcwd []", "paths.embedding_model: [] names no file"),
        ("!ref <pretrained_path>", "paths.embedding_model: <pretrained_path> names no file"),
    ],
)
def test_nothing_outside_of_the_checkpoint_is_read(copy, path, said):
    (copy.parent / "secret.ckpt").write_bytes((copy / "embedding_model.ckpt").read_bytes())
    start, text = f"encoder.source: {copy}: ", (copy / files.HYPERPARAMS).read_text()
    path = path.format(outside=copy.parent)
    (copy / files.HYPERPARAMS).write_text(text.replace("!ref <pretrained_path>/embedding_model.ckpt", path))
    with pytest.raises(InputError) as caught:
        load(copy)
    assert str(caught.value).startswith(start) and said in str(caught.value)
    (copy / files.HYPERPARAMS).write_text(text.replace("!ref <pretrained_path>/classifier.ckpt", path))
    assert load(copy)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("dilations: [1, 2, 3, 1]", "dilations: [1, 2, 3, 1", "not valid YAML"),
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
        (
            "  embedding_model: !ref <embedding_model>",
            "  embedding_model: !ref <classifier>",
            "Classifier, which is not loaded",
        ),
        ("  mean_var_norm: !ref <mean_var_norm>", "  mean_var_norm:", "mean_var_norm is NoneType"),
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
        ecapa.KIND,
        [
            "embedding_model.ckpt",
            "speechbrain/spkrec-ecapa-voxceleb/embedding_model.ckpt",
            "spkrec-ecapa-voxceleb/embedding_model.ckpt",
        ],
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
