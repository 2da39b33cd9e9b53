import json

import pytest

from src.evaluate import score_calibration
from src.runtime import calibration
from src.runtime.errors import InputError


def test_a_calibration_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    fitted = calibration.Calibration(12.345678, -0.5, 0.25, "s-norm")
    score_calibration.write(path, fitted)
    assert calibration.read(path) == fitted
    path.write_text(json.dumps({"more": 1, **json.loads(path.read_text())}))
    assert calibration.read(path) == fitted
    for text in ("{", "[]", '{"scale": 1}', '{"scale": "x", "offset": 0, "threshold_eer": 0, "normalisation": "none"}'):
        path.write_text(text)
        with pytest.raises(InputError, match="a.json: not a calibration"):
            calibration.read(path)
    with pytest.raises(InputError, match="no such file"):
        calibration.read(tmp_path / "b.json")
