import copy

import pytest
import torch
import torch.nn.functional as F

from src.quantize import ptq, qat
from src.quantize.sensitivity import ALL, COLUMNS, sensitivity, sqnr

GROUPS = ["layer0", "blocks.1", "blocks.2", "mfa", "attention", "fc"]


@pytest.fixture(scope="module")
def student(calibrated):
    return qat.fake_quantise(copy.deepcopy(calibrated[0]), calibrated[1])


@pytest.fixture(scope="module")
def found(student, features):
    return {row["group"]: row for row in sensitivity(student, features)}


def test_each_group_alone_hurts_less_than_all_of_them(found):
    assert list(found) == [*GROUPS, ALL] and all(tuple(row) == COLUMNS for row in found.values())
    for group in GROUPS:
        assert 0 < found[ALL]["embedding_sqnr_db"] < found[group]["embedding_sqnr_db"] < 100
        assert found[ALL]["embedding_cosine"] <= found[group]["embedding_cosine"] <= 1
        assert 0 < found[group]["output_sqnr_db"] < 100
    assert found["fc"]["output_sqnr_db"] == found["fc"]["embedding_sqnr_db"]


def test_all_of_them_are_the_quantised_network_and_none_is_the_fp32_one(network, calibrated, features, found):
    converted = ptq.convert(calibrated[0])
    with torch.no_grad():
        pairs = [(network(x), converted(x)) for x in features]
    assert found[ALL]["embedding_sqnr_db"] == pytest.approx(sqnr(pairs), abs=0.05)
    cosines = [F.cosine_similarity(*pair).item() for pair in pairs]
    assert found[ALL]["embedding_cosine"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)


def test_a_group_with_coarse_weights_stands_out(calibrated, features, found):
    ranges = copy.deepcopy(calibrated[1])
    student = qat.fake_quantise(copy.deepcopy(calibrated[0]), ranges)
    with torch.no_grad():  # one large weight a channel leaves few steps to the others
        student.get_parameter("mfa.weight")[:, 0] *= 300
    spoilt = {row["group"]: row["output_sqnr_db"] for row in sensitivity(student, features)}
    for group in ("layer0", "blocks.1", "blocks.2"):
        assert spoilt[group] == pytest.approx(found[group]["output_sqnr_db"], abs=1e-3)
    assert spoilt["mfa"] != pytest.approx(found["mfa"]["output_sqnr_db"], abs=0.5)


def test_sqnr():
    exact = torch.tensor([3.0, 4.0])
    assert sqnr([(exact, exact + torch.tensor([0.3, 0.4]))]) == pytest.approx(20, abs=1e-4)
    assert sqnr([(exact, exact)]) == float("inf")
