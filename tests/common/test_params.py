import copy
from pathlib import Path

import pytest
import yaml

from src.common import params
from src.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())


def write(tmp_path, where, value, remove=False):
    content = copy.deepcopy(SHIPPED)
    *parents, key = where.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    if remove:
        del section[key]
    else:
        section[key] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_shipped_parameters_are_valid():
    found = params.load(ROOT / "params.yaml")
    assert found.model_dump() == SHIPPED


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("data.sorce", "hub", "did you mean 'source'?"),
        ("qat_serch", {}, "did you mean 'qat_search'?"),
        ("data.source", "web", "'synthetic', 'folder' or 'hub'"),
        ("data.speakers", 1, "greater than or equal to 8"),
        ("evaluate.max_trials", 10, "greater than or equal to 1000"),
        ("scheduler", "host:8786", "such as tcp://host:8786, or local is needed, got 'host:8786'"),
        ("data.min_seconds", 9.0, "is above max_seconds"),
        ("data.splits.test", 0.5, "must add up to 1"),
        ("data.source", "folder", "path is needed"),
        ("data.trials", "list.txt", "only for source: folder"),
        ("evaluate.protocol", "superb-si", "needs data.source: hub"),
        ("evaluate.margins.eer", 0, "greater than 0"),
        ("qat_search.relative_rate", {"low": 3.0, "high": 0.3}, "is above high"),
        ("qat_search.batch_size", [1], "between 2 and 4096"),
        ("breakdown.snr", [5, 5], "twice"),
        ("breakdown.channels", ["gsm", "opus", "gsm"], "twice"),
        ("breakdown.channels", ["vorbis"], "'alaw', 'gsm', 'opus', 'mp3' or 'reverberation', got 'vorbis'"),
        ("evaluate.max_missing_trials", 1, "less than 1"),
        ("seed", True, "true and false are not allowed here, got True"),
        ("data.min_seconds", float("nan"), "finite number, got nan"),
        ("data.path", "a\0b", "not a text that a path can hold"),
        ("encoder.trust", "yes", "boolean, got 'yes'"),
        ("encoder.source", "", "at least 1 character, got ''"),
        ("data.path", 123, "a text that looks like a number or a date is put in quotes"),
        ("release.license", "Apache 2.0", "did you mean apache-2.0?"),
        ("release.license", "proprietary", "such ids are apache-2.0, mit"),
        ("release.language", "english", "did you mean en?"),
        ("release.language", "en-GB", "did you mean en?"),
        ("release.language", "Norwegain", "did you mean no?"),
        ("release.language", "xx", "the codes of ISO 639"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path, where, value, said):
    path = write(tmp_path, where, value)
    with pytest.raises(InputError) as caught:
        params.load(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value) and where.split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("where", "text", "value"),
    [
        ("release.language", "no", "no"),
        ("release.language", "multilingual", "multilingual"),
        ("release.license", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("data.config", "1:30", "1:30"),
        ("seed", "010", 10),
        ("evaluate.margins.top1", "1e-2", 0.01),
    ],
)
def test_values_are_read_as_dvc_writes_them_in_yaml_1_2(tmp_path, where, text, value):
    path = write(tmp_path, where, "REPLACED")
    path.write_text(path.read_text().replace("REPLACED", text))
    result = params.load(path)
    for key in where.split("."):
        result = getattr(result, key)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize("where", ["data.path", "data.trials", "encoder.source"])
def test_the_tilde_of_a_path_is_the_home_folder(tmp_path, monkeypatch, where):
    monkeypatch.setenv("HOME", str(tmp_path))
    content = {"source": "folder", "path": "speech", "trials": None}
    section, key = where.split(".")
    path = write(tmp_path, section, {**SHIPPED[section], **(content if section == "data" else {}), key: "~/some/x"})
    assert getattr(getattr(params.load(path), section), key) == f"{tmp_path}/some/x"


@pytest.mark.parametrize(
    ("source", "revision", "expected"),
    [
        ("speechbrain/spkrec-ecapa-voxceleb", None, "eac27266f68caa806381260bd44ace38b136c76a"),
        ("speechbrain/spkrec-ecapa-voxceleb", "main", "main"),
        ("example/ecapa-small", None, None),
        ("example/ecapa-small", "v1", "v1"),
    ],
)
def test_only_the_published_encoder_is_pinned_where_no_revision_is_given(tmp_path, source, revision, expected):
    path = write(tmp_path, "encoder", {**SHIPPED["encoder"], "source": source, "revision": revision})
    assert params.load(path).encoder.revision == expected


def test_a_missing_key_and_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="ptq.utterances: missing"):
        params.load(write(tmp_path, "ptq.utterances", None, remove=True))
    with pytest.raises(InputError, match="no such file"):
        params.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text",
    ["a: 2001-99-99", "a: !!bool x", "a: " + "9" * 5_000, "[" * 5_000, "? {a: b}\n: c", "\x00", "- 1", "", "data: ["],
)
def test_nonsense_is_one_clear_error(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        params.load(tmp_path / "params.yaml")
    assert str(tmp_path / "params.yaml") in str(caught.value)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        params.load(tmp_path)
