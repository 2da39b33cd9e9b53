import json

import pytest

from src.errors import InputError
from src.evaluate import llr


def test_a_calibration_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    fitted = llr.Calibration(12.345678, -0.5, 0.25, "s-norm")
    llr.write(path, fitted)
    assert llr.read(path) == fitted
    path.write_text(json.dumps({"more": 1, **json.loads(path.read_text())}))
    assert llr.read(path) == fitted
    for text in ("{", "[]", '{"scale": 1}', '{"scale": "x", "offset": 0, "threshold_eer": 0, "normalisation": "none"}'):
        path.write_text(text)
        with pytest.raises(InputError, match="a.json: not a calibration"):
            llr.read(path)
    with pytest.raises(InputError, match="no such file"):
        llr.read(tmp_path / "b.json")
