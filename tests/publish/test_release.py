"""The stage, from the other stages' files to a folder that the hub takes."""

import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard, SpaceCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from src import release, report, verify
from src.common import layout
from src.common.files import sha256
from src.evaluate import score_calibration
from src.publish import bill, card, provenance
from src.reporting import decision, results
from src.runtime import calibration
from src.runtime.errors import InputError
from src.runtime.scoring import normalised
from tests.evaluate.conftest import save_model
from tests.reporting.conftest import ROOT, change, place, write  # noqa: F401 (place is a fixture)

FILES = {"model.onnx", "config.json", "README.md", "bom.json", "LICENSES.md", "index.html", "page"}
KEYS = {
    "accuracy": "top1_accuracy",
    "eer": "eer",
    "min_dcf_0.01": "min_dcf_0.01",
    "min_dcf_0.05": "min_dcf_0.05",
    "cllr": "cllr",
    "min_cllr": "min_cllr",
}
NO_LOSS = {"fp32": 0, "ptq": 0.01, "qat": 0.01}


def measured(**changes):
    """What the stages before the report leave behind, in the working directory. Gives the parameters."""
    config = write(**changes)
    shutil.copytree(ROOT / "models/pretrained", "models/pretrained")
    for number, name in enumerate(("fp32", "ptq", "qat")):
        save_model(f"models/{name}.onnx", factor=1 + number)
        score_calibration.write(
            layout.calibration(name), calibration.Calibration(10.5, -4.25 + number, 0.4 + 0.01 * number)
        )
    return config


def prepared(**changes):
    """The same, with the report."""
    config = measured(**changes)
    report.main()
    return config


def digests():
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in release.FOLDER.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("release"))
        prepared(damage=NO_LOSS)
        release.main()
        yield release.FOLDER.absolute()


@pytest.fixture
def about(folder):
    return json.loads((folder / "config.json").read_text())


def test_everything_is_there_and_belongs_together(folder, about):
    assert {path.name for path in folder.iterdir()} == FILES
    model = folder / "model.onnx"
    assert about["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    name = {"INT8 PTQ": "ptq", "INT8 QAT": "qat", "fp32": "fp32"}[about["model"]]
    project = folder.parents[1]
    assert model.read_bytes() == (project / f"models/{name}.onnx").read_bytes()
    assert calibration.read(folder / "config.json") == calibration.read(project / layout.calibration(name))
    assert (about["sample_rate"], about["embedding_size"]) == (16_000, 5)
    stated = json.loads((project / layout.details(layout.STAGES[name])).read_text())
    for key, value in about["metrics"].items():
        assert key == "speakers_are" or value == stated[key], key
    for path, checksum in about["provenance"]["checksums"].items():
        assert checksum == hashlib.sha256((project / path).read_bytes()).hexdigest()
    assert {"data/manifest.csv", f"models/{name}.onnx"} < about["provenance"]["checksums"].keys()
    assert about["provenance"]["params"]["seed"] == 0


def test_a_second_run_gives_the_same_bytes_and_no_time_is_in_them(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[1])
    before = digests()
    release.main()
    assert digests() == before
    text = (folder / "config.json").read_text() + (folder / "README.md").read_text()
    assert "_ms" not in text and " ms" not in text


def test_the_hub_can_read_the_card(folder, about):
    loaded = ModelCard.load(folder / "README.md")
    data = metadata_load(folder / "README.md")
    assert (data["license"], data["language"], data["library_name"]) == ("apache-2.0", "en", "onnx")
    for name in (data["base_model"], *data["datasets"]):
        validate_repo_id(name)
    assert {"speaker-verification", "onnx", "int8"} <= set(data["tags"])
    name, found = model_index_to_eval_results(data["model-index"])
    assert name == loaded.data.model_name and [each.unique_identifier for each in found] == [
        each.unique_identifier for each in loaded.data.eval_results
    ]
    assert len(found) == len(KEYS)
    for each in found:
        key = KEYS[each.metric_type]
        scale = 100 if key in ("top1_accuracy", "eer") else 1
        ci = about["metrics"][f"{key}_ci"]
        numbers = [each.metric_value, each.metric_args["low"], each.metric_args["high"]]
        assert numbers == pytest.approx([scale * value for value in (about["metrics"][key], ci["low"], ci["high"])])
        assert each.dataset_args["trials"] == about["metrics"]["trials"] and "95 % interval" in each.metric_name


def test_the_folder_is_a_static_space_too(folder):
    space = SpaceCard.load(folder / "README.md").data
    assert space.sdk == "static" and (folder / space.app_file).is_file() and space.license == "apache-2.0"
    page = (folder / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page):
        assert (folder / name).is_file(), name
    assert not re.search(
        r"https?://", "".join(path.read_text() for path in [folder / "index.html", *(folder / "page").iterdir()])
    )


def test_the_program_in_the_card_runs(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (program,) = [part.split("```")[0] for part in (folder / "README.md").read_text().split("```python\n")[1:]]
    for seed, name in enumerate(("enrol.wav", "test.wav")):
        soundfile.write(tmp_path / "copy" / name, np.random.default_rng(seed).uniform(-0.5, 0.5, 16_000), 16_000)
    output = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "copy", capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    score, llr_, same = output.stdout.split()
    config = json.loads((folder / "config.json").read_text())
    assert float(llr_) == pytest.approx(config["scale"] * float(score) + config["offset"], abs=1e-4)
    assert same == str(float(score) >= config["threshold_eer"])


def test_the_bill_is_valid_and_names_what_is_installed(folder, about):
    text = (folder / "bom.json").read_text()
    # The validator reads an address for 50 ms: plain ones are given to it as numbers.
    number, plain = itertools.count(), re.compile(r'(?<="url": ")https?://[\w.-]+(/[\w.~/?#&=%+:@-]*)?(?=")', re.ASCII)
    short = plain.sub(lambda _: f"a:{next(number)}", text)
    assert next(number) > 200 and JsonStrictValidator(SchemaVersion.V1_6).validate_str(short) is None
    found = json.loads(text)
    assert found["metadata"]["component"]["hashes"][0]["content"] == about["sha256"]
    assert "timestamp" not in found["metadata"] and "serialNumber" not in found
    components = {canonicalize_name(each["name"]): each for each in found["components"]}
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    for name in components.keys() - {"espeak-ng"}:
        assert components[name]["version"].partition("+")[0] == pinned[name]
    asked_for = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {canonicalize_name(Requirement(line).name) for line in asked_for} <= components.keys()
    assert {"aiohttp", "sympy"} <= components.keys() and not {"pytest", "mypy", "openvino"} & components.keys()
    required = {name for name, each in components.items() if each["scope"] == "required"}
    assert {"onnxruntime", "numpy", "soundfile", "cffi"} <= required
    assert not {"torch", "scipy", "pydantic", "jinja2", "aiohttp", "sympy"} & required
    known = {each["bom-ref"] for each in found["components"]} | {"model"}
    assert all({entry["ref"], *entry.get("dependsOn", ())} <= known for entry in found["dependencies"])
    assert components["espeak-ng"]["licenses"] == [{"license": {"id": "GPL-3.0-or-later"}}]
    listed = (folder / "LICENSES.md").read_text()
    assert all(f"| {each['name']} |" in listed for each in found["components"])
    assert "| espeak-ng |  | GPL-3.0-or-later |" in listed


def test_a_bill_without_all_that_is_asked_for_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(bill, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy", "Not.There>=1"]\n')
    with pytest.raises(InputError, match="pyproject.toml: not-there: not installed"):
        bill.bill({"bom-ref": "model"}, synthetic=False)


def test_without_an_int8_model_that_loses_nothing_fp32_is_released(place):
    config = prepared(damage={"fp32": 0, "ptq": 4.0, "qat": 4.0})
    found = results.load(config)
    assert decision.choice(found) is None
    release.main()
    about = json.loads((release.FOLDER / "config.json").read_text())
    data = metadata_load(release.FOLDER / "README.md")
    assert about["model"] == "fp32" and "int8" not in data["tags"] and "base_model_relation" not in data
    assert (release.FOLDER / "model.onnx").read_bytes() == Path("models/fp32.onnx").read_bytes()
    assert about["choice"]["verdicts"] == {"ptq": "inferior", "qat": "inferior"}
    assert about["choice"]["confirmed_on_test"] is None
    text = " ".join((release.FOLDER / "README.md").read_text().split())
    assert "against fp32, and fp32 itself where none is" in text
    assert text.count("shown to lose. ") == 2


def test_what_a_stranger_must_not_see_or_assume(place):
    config = measured(
        damage=NO_LOSS,
        qat_search={"storage": "mysql://me:secret@host/db"},
        encoder={"source": "speechbrain/spkrec-ecapa-voxceleb"},
        data={"source": "folder", "path": "/home/me/My Speech"},
        evaluate={"normalisation": "s-norm"},
    )
    found = results.load(config)
    data = card.metadata(found, found.models["ptq"])
    assert (data.license, data.license_name) == ("other", "not-stated") and data.language is None
    assert data.base_model == "speechbrain/spkrec-ecapa-voxceleb" and data.datasets == ["My-Speech"]
    text = card.card(found, found.models["ptq"])
    assert (
        "licence of the encoder was not stated" in text and "after s-norm" in text and "voiceprints of people" in text
    )
    assert "secret" not in json.dumps(provenance.provenance(config, []))


def test_a_release_with_normalised_scores_carries_its_cohort(place, tmp_path):
    prepared(damage=NO_LOSS, evaluate={"normalisation": "as-norm", "cohort_top": 4})
    for number, name in enumerate(("fp32", "ptq", "qat")):
        np.save(layout.cohort(name), normalised(np.random.default_rng(number).normal(size=(7, 5))).astype(np.float32))
        about = calibration.Cohort("cohort.npy", sha256(layout.cohort(name)), 4)
        fitted = calibration.Calibration(2.0, -1.0, 1.5, "as-norm", cohort=about)
        score_calibration.write(layout.calibration(name), fitted)
    release.main()
    assert {path.name for path in release.FOLDER.iterdir()} == FILES | {"cohort.npy"}
    config = json.loads((release.FOLDER / "config.json").read_text())
    assert {"models/release"} != config["provenance"]["checksums"].keys() and config["cohort"]["top"] == 4
    assert any(path.endswith("cohort.npy") for path in config["provenance"]["checksums"])
    copy = shutil.copytree(release.FOLDER, tmp_path / "copy")
    for seed, name in enumerate(("enrol.wav", "test.wav")):
        soundfile.write(copy / name, np.random.default_rng(seed).uniform(-0.5, 0.5, 16_000), 16_000)
    (program,) = [part.split("```")[0] for part in (copy / "README.md").read_text().split("```python\n")[1:]]
    output = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    found, status = verify.verify([copy / "enrol.wav"], copy / "test.wav", copy / "model.onnx")
    score, llr_, same = output.stdout.split()
    assert float(score) == pytest.approx(found["score"], abs=1e-4) and same == str(status == 0)
    assert float(llr_) == pytest.approx(found["log_likelihood_ratio"], abs=1e-3)


def test_the_costs_of_the_card_are_those_of_the_model_in_the_release_and_its_licence_is_stated(place):
    measured(damage=NO_LOSS, release={"license": "cc-by-4.0", "language": "de"})
    for number, name in enumerate(("ptq", "qat_search", "profile"), start=1):
        change(layout.details(name), gmacs=number + 0.125, size_mb=number + 0.5, params_million=number + 10.25)
    change(layout.details("ptq"), gmacs=2.5)
    report.main()
    release.main()
    costs = json.loads((release.FOLDER / "config.json").read_text())["metrics"]
    card = (release.FOLDER / "README.md").read_text()
    assert costs["gmacs"] == 2.125
    for text in (f"{costs['gmacs']:.3f} GMACs", f"{costs['size_mb']:.2f}", f"{costs['params_million']:.2f}"):
        assert text in card, text
    data = metadata_load(release.FOLDER / "README.md")
    assert (data["license"], data["language"]) == ("cc-by-4.0", "de")


def test_nothing_is_left_where_a_file_is_missing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(folder.parents[1], tmp_path / "copy"))
    shutil.rmtree(release.FOLDER)
    for name in ("ptq", "qat"):
        layout.calibration(name).unlink()
    with pytest.raises(InputError, match="calibration.json: no such file"):
        release.main()
    assert not release.FOLDER.exists() and not list(Path("models").glob(".release*"))
