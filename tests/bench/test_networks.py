"""The benchmark of the kinds of networks, on small ones."""

import pytest

pytest.importorskip("openvino", reason="requirements-bench.txt is not installed")
pytest.importorskip("nncf", reason="requirements-bench.txt is not installed")

from bench import networks
from src.cost import latency
from tests.encoder.helpers import RESNET, XVECTOR


@pytest.mark.slow
@pytest.mark.parametrize("name, arguments", [("xvector", XVECTOR), ("resnet", RESNET)])
def test_every_model_of_a_network_is_timed(tmp_path, name, arguments):
    noise = list(latency.noise(32_000).reshape(2, -1))
    rows = networks.measure(name, networks.initial(name, arguments), noise, 2, 1, 0.5, tmp_path)
    assert [row[0] for row in rows] == [name] * 5 and all(len(row) == len(networks.COLUMNS) for row in rows)
    *_, fp32, int8 = (dict(zip(networks.COLUMNS, row)) for row in rows)
    assert (fp32["in INT8"], int8["in INT8"]) == ("0.0%", "100.0%") and fp32["GMACs"] == int8["GMACs"]
    assert all(float(row[5]) > 0 and float(row[4]) > 0 for row in rows)
