import pytest

from src.reporting import decision, results
from tests.reporting.conftest import change, place, write  # noqa: F401 (place is a fixture)


@pytest.mark.parametrize(("shares", "chosen"), [((0.99, 0.98), "ptq"), ((0.98, 0.99), "qat")])
def test_of_equal_operations_the_larger_share_in_int8_is_chosen(place, shares, chosen):
    config = write(damage={"fp32": 0, "ptq": 0.01, "qat": 0.01})
    for name, share in zip(("ptq", "qat_search"), shares):
        change(f"metrics/details/{name}.json", gmacs=1.0, int8_mac_share=share)
    assert decision.choice(results.load(config)).name == chosen
