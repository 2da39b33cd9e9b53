import hashlib
import json
import os

import pytest

from src.evaluate import score_calibration
from src.runtime import calibration
from src.runtime.errors import InputError
from tests.workspace import ROOT, python


def test_a_calibration_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    fitted = calibration.Calibration(12.345678, -0.5, 0.25, "s-norm")
    score_calibration.write(path, fitted)
    assert calibration.read(path) == fitted
    path.write_text(json.dumps({"more": 1, **json.loads(path.read_text())}))
    assert calibration.read(path) == fitted
    with pytest.raises(InputError, match="no such file"):
        calibration.read(tmp_path / "b.json")


def test_what_a_calibration_may_lack_is_read_as_it_was(tmp_path):
    tail, cohort = calibration.Nontargets(0.5, 0.25, 1000, 2), calibration.Cohort("cohort.npy", "0" * 64, None)
    fitted = calibration.Calibration(1.0, 2.0, 3.0, "s-norm", 4.0, tail, cohort)
    score_calibration.write(tmp_path / "a.json", fitted)
    assert calibration.read(tmp_path / "a.json") == fitted and fitted.accepted == 4.0
    content = json.loads((tmp_path / "a.json").read_text())
    for key, part, said in (
        ("nontargets", {"location": 0.5}, "no 'scale'"),
        ("nontargets", {"location": 0, "scale": -1, "trials": 5}, "scale is '-1'"),
        ("nontargets", [], "no 'location'"),
        ("cohort", {"file": "cohort.npy", "sha256": 3}, "sha256 is '3'"),
        ("threshold", "high", "threshold is 'high'"),
    ):
        (tmp_path / "a.json").write_text(json.dumps(content | {key: part}))
        with pytest.raises(InputError, match=said):
            calibration.read(tmp_path / "a.json")


FITTED = calibration.Calibration(12.0, -0.5, 0.25)


def release(folder, model="model.onnx"):
    """A model, whatever its content, with config.json beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / model).write_bytes(b"a model")
    digest = hashlib.sha256(b"a model").hexdigest()
    (folder / "config.json").write_text(json.dumps({**FITTED.fields(), "sha256": digest}))
    return folder / model


def test_a_model_has_the_calibration_beside_it_or_that_of_its_evaluation(tmp_path, monkeypatch):
    model = release(tmp_path / "models")
    evaluation = tmp_path / "metrics/evaluation/model/calibration.json"
    score_calibration.write(evaluation, calibration.Calibration(1.0, 0.0, 0.5))
    assert calibration.of_model(model) == (FITTED, str(tmp_path / "models/config.json"))
    (tmp_path / "models/config.json").unlink()
    assert calibration.of_model(model) == (calibration.Calibration(1.0, 0.0, 0.5), str(evaluation))
    monkeypatch.chdir(tmp_path / "models")
    for path in ("model.onnx", "../models/model.onnx", "../metrics/../models/model.onnx"):
        assert calibration.of_model(path)[1] == str(evaluation)
    evaluation.unlink()
    assert calibration.of_model(model)[0] is None
    release(tmp_path / "models")
    model.write_bytes(b"another model")
    assert calibration.of_model(model) == (None, f"{tmp_path}/models/config.json is about another model")


def test_a_model_at_the_root_of_a_container(tmp_path):
    """`/model.onnx`, in a file system whose root is this folder."""
    release(tmp_path)
    program = """
import os, sys
from src.runtime import calibration
os.chroot(sys.argv[1])
os.chdir("/")
for model in ("/model.onnx", "model.onnx"):
    print(*calibration.of_model(model))
os.unlink("/config.json")
print(calibration.of_model("/model.onnx")[1])
"""
    if os.geteuid():
        pytest.skip("chroot is for root")
    output = python(ROOT, "-c", program, tmp_path)
    assert output.stdout.splitlines() == [
        f"{FITTED} /config.json",
        f"{FITTED} /config.json",
        "neither /config.json nor /metrics/evaluation/model/calibration.json is there",
    ], output.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "not a calibration: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "not a calibration: "),
        (b"[]", "not a calibration: no 'scale'"),
        (b'{"scale": 1, "offset": 0}', "not a calibration: no 'threshold_eer'"),
        (b'{"scale": 1, "offset": 0, "threshold_eer": NaN, "normalisation": "none"}', "threshold_eer is 'nan'"),
        (b'{"scale": 1' + b"0" * 400 + b', "offset": 0, "threshold_eer": 0, "normalisation": "none"}', "scale is '10"),
        (b'{"scale": 1, "offset": 0, "threshold_eer": 0, "normalisation": "none"}', "no 'sha256'"),
    ],
)
def test_a_damaged_file_beside_the_model_is_one_line(tmp_path, content, said):
    model = release(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        calibration.of_model(model)
    assert str(caught.value).startswith(f"{tmp_path}/config.json: ") and "\n" not in str(caught.value)
