"""What the report says: the verdict follows the intervals, and no saving is called what it is not."""

import pytest

from src.evaluate.accuracy import KEYS
from src.reporting import environment, numbers, tables, words
from src.reporting.results import load
from tests.reporting.conftest import change, write

OPEN = {"value": 0.001, "low": -0.002, "high": 0.003}
LOSS = {"value": 0.01, "low": 0.004, "high": 0.02}


def _differences(**kinds):
    """`difference` with one interval that includes 0 for every key but those given."""
    return {key: dict(kinds.get(key.replace(".", ""), OPEN)) for key in KEYS}


def _speeds(file, reference, name, value, low, high):
    taken = {"median_ms": 60.0, "low_ms": 59.0, "high_ms": 61.0, "speedup": 1.0, "speedup_ci": {"low": 1, "high": 1}}
    change(
        f"metrics/{file}.json",
        models={
            reference: taken,
            name: taken | {"median_ms": 60 / value, "speedup": value, "speedup_ci": {"low": low, "high": high}},
        },
    )


@pytest.fixture
def results(place):
    """`results(ptq=..., qat=...)`: results with these differences to fp32."""
    config = write()

    def made(ptq, qat):
        change("metrics/details/ptq.json", difference=ptq, eer=0.05)
        change("metrics/details/qat_search.json", difference=qat, eer=0.06)
        _speeds("latency", "speechbrain", "fp32", 2.2, 2.1, 2.3)
        _speeds("evaluation/ptq/latency", "fp32", "ptq", 2.5, 2.4, 2.6)
        _speeds("evaluation/qat/latency", "fp32", "qat", 2.5, 2.4, 2.6)
        return load(config)

    return made


@pytest.mark.parametrize(
    "key, found, kind, loss",
    [
        ("eer", (0.01, 0.004, 0.02), "worse", "2.00"),
        ("eer", (-0.01, -0.02, -0.004), "better", "−0.40"),
        ("eer", (0.01, 0.0, 0.02), "open", "2.00"),
        ("top1_accuracy", (-0.01, -0.02, -0.004), "worse", "2.00"),
        ("top1_accuracy", (0.01, 0.004, 0.02), "better", "−0.40"),
        ("top1_accuracy", (-0.01, -0.03, 0.01), "open", "3.00"),
        ("min_dcf_0.05", (-0.0002, -0.0096, 0.0083), "open", "0.0083"),  # the decimals of the interval
        ("min_dcf_0.01", (0.0, 0.0, 0.0), "same", "0.000"),
    ],
)
def test_effect(key, found, kind, loss):
    figures = {"difference": {key: dict(zip(("value", "low", "high"), found))}}
    assert words.effect(key, figures) == kind
    assert numbers.largest_loss(key, figures) == loss


def test_verdict_without_a_shown_loss(results):
    found = results(_differences(), _differences())
    assert words.choice(found).name == "ptq"  # the same computation: the lower EER
    said = words.verdict(found)
    assert said.startswith(
        "INT8 PTQ computes 5.408 GMACs instead of SpeechBrain’s 5.652, 4.3 % fewer, 99.6 % of them on 8-bit integers, "
        "and was 2.50 times as fast as fp32.onnx, with no loss of accuracy shown on 16 synthetic speakers"
    )
    assert said.endswith(": EER +0.10 points (95 % interval −0.20 to +0.30), top-1 +0.10 points (−0.20 to +0.30).")


def test_qualification_names_the_margin_and_what_could_have_been_shown(results):
    found = results(_differences(), _differences())
    for noninferior, said in ((1, "is excluded"), (0, "is not excluded")):
        change("metrics/details/ptq.json", noninferior=noninferior, smallest_detectable_eer=0.0123)
        found = load(found.params)
        assert (
            f"An EER higher by 0.50 points or more {said}; the smallest EER difference that this test would "
            "show four times in five is 1.23 points."
        ) == words.qualification(found)
    rows = {
        label: [str(cell) for cell in cells] for section in tables.everything(found) for label, cells in section.rows
    }
    assert rows["EER not higher by 0.50 points"][:2] == ["–", "not shown"]
    assert rows["smallest EER difference to be shown, 80 % power"][1] == "1.23 points"


def test_a_shown_loss_rules_a_model_out_beyond_the_margin(results):
    found = results(_differences(top1_accuracy={"value": -0.02, "low": -0.03, "high": -0.01}), _differences())
    assert words.choice(found).name == "qat"
    assert words.qualification(found).endswith(" INT8 PTQ was shown to lose in top-1.")
    answers = [str(answer) for answer in words.answers(found)]
    assert "INT8 PTQ loses in top-1 (−2.00 points, 95 % interval −3.00 to −1.00)" in answers[4]
    assert "a loss in top-1 was shown" in answers[2]


def test_a_shown_loss_of_eer_within_the_margin_is_called_that(results):
    small = {"value": 0.002, "low": 0.001, "high": 0.003}
    for noninferior, chosen in ((1, "ptq"), (0, "qat")):
        found = results(_differences(eer=small), _differences(eer={**small, "low": -0.001}))
        change("metrics/details/ptq.json", noninferior=noninferior)
        change("metrics/details/qat_search.json", noninferior=0)
        found = load(found.params)
        assert words.choice(found).name == chosen
        assert ("with a loss of EER within the margin on" in words.verdict(found)) == bool(noninferior)


def test_fewer_operations_win_among_those_within_the_margin(results):
    found = results(_differences(), _differences())
    change("metrics/details/ptq.json", noninferior=1)
    for noninferior, chosen in ((1, "qat"), (0, "ptq")):
        change("metrics/details/qat_search.json", gmacs=1.7, noninferior=noninferior)
        assert words.choice(load(found.params)).name == chosen
    assert "computes 5.408 GMACs" in words.verdict(load(found.params))


def test_verdict_with_losses_falls_back_on_the_rewrite(results):
    found = results(_differences(eer=LOSS), _differences(eer=LOSS, min_dcf_005=LOSS))
    assert words.choice(found) is None
    said = words.verdict(found)
    assert said.startswith(
        "INT8 costs accuracy on 16 synthetic speakers: INT8 PTQ was shown to lose in EER, INT8 QAT was shown "
        "to lose in EER; what costs none "
    )
    assert "5.6516 GMACs become 5.4078, 4.3 % fewer" in said and "2.20 times as fast as SpeechBrain" in said


def test_an_open_difference_says_what_it_excludes(results):
    found = results(_differences(top1_accuracy={"value": -0.02, "low": -0.05, "high": 0.01}), _differences())
    said = str(words.answers(found)[2])
    assert "no difference was shown, −2.00 points, 95 % interval −5.00 to +1.00" in said
    assert "the interval excludes a loss larger than 5.00 points" in said


def test_time_that_was_not_saved_is_not_claimed(results):
    found = results(_differences(), _differences())
    for value, low, high, said in (
        (1.01, 0.97, 1.05, "not shown to differ in speed from fp32.onnx, 1.01 times"),
        (0.8, 0.75, 0.85, "0.80 times as fast as fp32.onnx"),
    ):
        _speeds("evaluation/ptq/latency", "fp32", "ptq", value, low, high)
        assert said in words.verdict(load(found.params))


def test_moved_removed_and_measured_are_told_apart(results):
    found = results(_differences(), _differences())
    moved, removed, size, time = words.answers(found)[1].blocks[1]
    assert "99.6 % of the multiply-accumulates" in moved and "the file offers 99.8 %" in moved
    assert "none, it has the 5.4078 GMACs of fp32.onnx" in removed
    assert "5.90 MB, 27.4 % of the 21.50 MB" in size
    assert "24.0 ms, and 60.0 ms for fp32.onnx; 2.50 times as fast" in time


def test_answers_name_the_trial_and_the_demonstration(results):
    found = results(_differences(), _differences())
    search = str(words.answers(found)[3])
    assert "Of 4 trials, trial 2 computes least, 3.0000 GMACs" in search
    assert "(+0.10 points, 95 % interval −0.10 to +0.34)" in search
    assert "It was trained with learning rate 3.16e−4" in search
    assert "is 1.2400; fp32 has 1.2200, the plain INT8 model before any training 1.2900" in search
    assert "demonstration set and not real speech" in " ".join(words.material(found))
    assert "not for production" in " ".join(words.material(found))


def test_a_search_without_a_candidate_says_so(results):
    found = results(_differences(), _differences())
    change("metrics/details/qat_search.json", passed_validation=0, chosen={"trial": -1})
    said = str(words.answers(load(found.params))[3])
    assert "None of 4 trials was shown to raise the EER of validation speakers by less than 0.50 points" in said


@pytest.mark.parametrize(
    "name, said",
    [
        ("none", None),
        ("s-norm", "Scores: s-norm against the speakers of the split finetune."),
        ("as-norm", "Scores: as-norm against the speakers of the split finetune, its 20 likest."),
    ],
)
def test_normalisation_is_named(place, name, said):
    told = words.material(load(write(evaluate={"normalisation": name})))
    assert (said in told) if said else not any(line.startswith("Scores") for line in told)


def test_all_figures_of_the_contract_are_in_the_table(results):
    found = results(_differences(), _differences())
    rows = {
        (section.title, label): [str(cell) for cell in cells]
        for section in tables.everything(found)
        for label, cells in section.rows
    }
    assert rows["Difference to fp32, all test speakers", "EER, points"] == [
        "–",
        "+0.10 (−0.20 to +0.30)",
        "+0.10 (−0.20 to +0.30)",
    ]
    assert rows["Computation, 3 s of audio", "multiplications moved to INT8"] == ["0 %", "99.6 %", "99.6 %"]
    assert rows["Time measured, 3 s of audio", "times as fast as fp32.onnx ¹"][1] == "2.50 (2.40 to 2.60)"


def test_environment_shows_where_runs_differ(results):
    found = results(_differences(), _differences())
    versions = found.models["fp32"].timing["versions"]
    change("metrics/evaluation/ptq/latency.json", cpu={"model": "another CPU", "extensions": []})
    facts = dict(environment.facts(load(found.params)))
    assert facts["CPU"].endswith(" / another CPU")
    assert facts["onnxruntime"] == versions["onnxruntime"]


@pytest.mark.parametrize(
    "text, wanted",
    [
        (numbers.fixed(-0.001, 2), "0.00"),
        (numbers.fixed(-1.5, 1, sign=True), "−1.5"),
        (numbers.fixed(1.5, 1, sign=True), "+1.5"),
        (numbers.fixed(0, 1, sign=True), "0.0"),
        (numbers.places([0.0, 0.003], 2), 3),
        (numbers.places([1e-9], 2), 4),
        (numbers.places([1.0], 2), 2),
        (numbers.share(0), "0 %"),
        (numbers.share(1), "100 %"),
        (numbers.share(0.99999), "> 99.9 %"),
        (numbers.share(1e-6), "< 0.1 %"),
        (numbers.share(0.0128), "1.3 %"),
        (numbers.significant(3.1623e-4), "3.16e−4"),
        (numbers.significant(0.1), "0.100"),
        (numbers.significant(0), "0"),
        (numbers.significant(1234.5), "1234"),
        (numbers.count(1, "trial"), "1 trial"),
        (numbers.count(12345, "trial"), "12,345 trials"),
    ],
)
def test_numbers(text, wanted):
    assert text == wanted
