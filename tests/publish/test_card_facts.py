import json

from src import release, report
from src.common import layout
from tests.publish.test_release import NO_LOSS, prepared
from tests.reporting.conftest import change, place  # noqa: F401 (place is a fixture)


def test_the_costs_of_the_card_are_those_of_the_model_in_the_release(place):
    prepared(damage=NO_LOSS)
    for number, name in enumerate(("ptq", "qat_search", "profile"), start=1):
        change(layout.details(name), gmacs=number + 0.125, size_mb=number + 0.5, params_million=number + 10.25)
    change(layout.details("ptq"), gmacs=2.5)
    report.main()
    release.main()
    about, card = (json.loads((release.FOLDER / "config.json").read_text()), (release.FOLDER / "README.md").read_text())
    costs = about["metrics"]
    assert costs["gmacs"] == 2.125
    for text in (f"{costs['gmacs']:.3f} GMACs", f"{costs['size_mb']:.2f}", f"{costs['params_million']:.2f}"):
        assert text in card, text
