"""What the report says: the sentences follow the intervals, and no saving is called what it is not."""

import re
from dataclasses import replace

import pytest

from src.reporting import environment, numbers, prose, tables
from tests.reporting.test_decision import INFERIOR, LOSS_OF_EER, UNDECIDED, altered, measured  # noqa: F401 (a fixture)


def _timed(results, name, value, low, high):
    """Results in which a model was so many times as fast as the reference of its run, which took 60 ms."""
    model = results.models[name]
    timing = {"median_ms": 60.0, "low_ms": 59.0, "high_ms": 61.0, "speedup": 1.0, "speedup_ci": {"low": 1, "high": 1}}
    faster = {"median_ms": 60 / value, "speedup": value, "speedup_ci": {"low": low, "high": high}}
    models = {model.timing["reference"]: timing, name: timing | faster}
    return replace(results, models=results.models | {name: replace(model, timing=model.timing | {"models": models})})


@pytest.fixture(scope="module")
def results(measured):
    """Results whose INT8 models both pass on validation speakers, at the same cost."""
    equal = altered(measured, ptq={}, qat={})
    for name, value in (("fp32", 2.2), ("ptq", 2.5), ("qat", 2.5)):
        equal = _timed(equal, name, value, round(value - 0.1, 1), round(value + 0.1, 1))
    return equal


def _said(results, macro, *arguments):
    """What a macro of prose.md.j2 says."""
    module = prose.environment().get_template("prose.md.j2").make_module(prose.values(results))
    return prose.reflow(getattr(module, macro)(*arguments))


def _headline(results):
    return [(figure.value, figure.unit, figure.notes[0]) for figure in tables.headline(results)]


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (None, None),
        (0, "- Trial list: 0 trials of 1,280 left out because"),
        (20, "- Trial list: 20 trials of 1,300 (1.5 %) left out because a recording is missing or cannot be used."),
    ],
)
def test_trials_left_out_of_a_list_are_counted(results, missing, line):
    listed = _said(replace(results, test=replace(results.test, trials_missing=missing)), "material")
    assert len(results.test.verification) == 1280
    assert line in listed if line else "Trial list" not in listed


def test_headline_is_of_the_chosen_model(results):
    assert _headline(results) == [
        ("4.3", "%", "5.652 → 5.408 GMACs"),
        ("5.50", "×", "95 % CI 5.04 to 5.98"),  # 2.2 × 2.5, 2.1 × 2.4, 2.3 × 2.6
        ("+0.10", "points", "95 % CI −0.20 to +0.30"),
        ("5.90", "MB", "SpeechBrain’s checkpoint: 83.30 MB"),
    ]
    assert _said(results, "verdict") == (
        "Use INT8 PTQ: non-inferior on 40 validation speakers, which the test confirms."
    )


def test_headline_and_verdict_fall_back_on_the_rewrite(results):
    lossy = altered(results, ptq=INFERIOR, qat=INFERIOR)
    assert _said(lossy, "verdict") == "Use fp32: every INT8 model is shown to lose accuracy on 40 validation speakers."
    for macro in ("qualification", "trade_off"):
        said = _said(lossy, macro)
        for title in ("INT8 PTQ", "INT8 QAT"):
            assert (
                f"{title} on 40 validation speakers: EER +0.10 points (95 % interval −0.20 to +0.30), top-1 +0.10 points "
                "(95 % interval −0.20 to +0.30); shown to lose." in said
            )
    operations, speed, eer, size = _headline(lossy)
    assert operations == ("4.3", "%", "5.652 → 5.408 GMACs") and speed == ("2.20", "×", "95 % CI 2.10 to 2.30")
    assert eer[:2] == (f"{100 * lossy.models['fp32'].accuracy['eer']:.2f}", "%")
    assert size[:2] == (f"{lossy.models['fp32'].cost['size_mb']:.2f}", "MB")


def test_a_test_that_does_not_confirm_is_in_the_verdict(results):
    lossy = altered(results, ptq={"difference": LOSS_OF_EER}, qat=INFERIOR)
    assert "Use INT8 PTQ" in _said(lossy, "verdict") and "the test does not confirm." in _said(lossy, "verdict")
    said = (
        "The test does not confirm that INT8 PTQ loses less than 0.50 points of EER and 2.00 points of top-1: EER +1.00"
    )
    for macro in ("qualification", "trade_off"):
        assert said in _said(lossy, macro)


@pytest.mark.parametrize(
    "needed, said", [(123, "takes about 123 such speakers"), (20, "would most likely have passed")]
)
def test_what_is_undecided_says_how_many_speakers_it_takes(results, needed, said):
    undecided = {"validation": {"verdict": "undecided", "speakers_needed": needed}}
    none = altered(results, ptq=undecided, qat=INFERIOR)
    assert _said(none, "verdict").startswith("Use fp32 for now, undecided: whether an INT8 model loses less than 0.50")
    assert said in _said(none, "qualification") and "INT8 QAT on 40" in _said(none, "qualification")
    cheaper = altered(results, ptq={}, qat={"gmacs": 1.0} | undecided)
    assert "Use INT8 PTQ" in _said(cheaper, "verdict")
    assert _said(cheaper, "verdict").endswith("confirms. INT8 QAT, which is cheaper, is undecided.")
    assert said in _said(cheaper, "qualification") and said in _said(cheaper, "trade_off")
    assert "undecided" not in _said(altered(results, ptq={}, qat={"gmacs": 9.0} | UNDECIDED), "verdict")


@pytest.mark.parametrize(
    "key, difference, effect, text, loss",
    [
        ("top1_accuracy", (-0.02, -0.05, 0.01), "open", "−2.00 points", "5.00 points"),
        ("eer", (0.01, 0.004, 0.02), "worse", "+1.00 points", "2.00 points"),
        ("eer", (-0.01, -0.02, -0.004), "better", "−1.00 points", "−0.40 points"),
        ("min_dcf_0.05", (-0.0002, -0.0096, 0.0083), "open", "−0.0002", "0.0083"),  # the decimals of the interval
        ("min_dcf_0.01", (0.0, 0.0, 0.0), "same", "0.000", "0.000"),
    ],
)
def test_comparison(results, key, difference, effect, text, loss):
    ends = dict(zip(("value", "low", "high"), difference, strict=True))
    results = altered(results, ptq={"difference": {key: ends}})
    row = next(row for row in tables.comparisons(results.models["ptq"], results) if row.key == key)
    assert (row.effect, row.difference, row.largest_loss) == (effect, text, loss)
    said = _said(results, "compared", results.models["ptq"])
    line = next(line for line in said.splitlines() if line.startswith(f"- {row.title} {row.value}"))
    assert row.interval in line or effect == "same"
    assert ("no difference" in line, " loss." in line, " gain." in line) == (
        effect in ("open", "same"),
        effect == "worse",
        effect == "better",
    )


@pytest.mark.parametrize("value, low, high, shown", [(1.01, 0.97, 1.05, False), (0.8, 0.75, 0.85, True)])
def test_time_that_was_not_saved_is_not_claimed(results, value, low, high, shown):
    said = _said(_timed(results, "ptq", value, low, high), "ptq_cost")
    assert f"{value:.2f} times as fast as fp32.onnx (95 % interval {low} to {high})" in said
    assert ("no difference in speed shown" in said) == (not shown)


def test_moved_removed_and_measured_are_told_apart(results):
    moved, removed, size, time = prose.blocks(_said(results, "ptq_cost"))[1]
    assert "99.6 %" in moved and "the file offers 99.8 %" in moved
    assert "none" in removed and "5.4078 GMACs" in removed
    assert "5.90 MB, 27.4 % of the 21.50 MB" in size
    assert "24.0 ms" in time and "60.0 ms for fp32.onnx" in time and "2.50 times" in time


def test_the_chosen_trial_is_described(results):
    said = _said(results, "search")
    for fact in (
        "Trial 2 was chosen",
        "3.0000 GMACs",
        "+0.10 points, 95 % interval −0.10 to +0.34",
        "learning rate 3.16e−4",
        "batch size 8",
    ):
        assert fact in said
    assert [float(number) for number in re.findall(r"\b1\.2\d+", said)] == [1.23, 1.22, 1.29]
    none = replace(results, search=results.search | {"passed_validation": 0, "chosen": {"trial": -1, "share": 1.0}})
    untrained = replace(results, search=results.search | {"chosen": {"trial": -1, "share": 0.4}})
    said = _said(untrained, "search")
    assert "Training brought nothing" in said and "2.0000 GMACs" in said
    said = _said(none, "search")
    assert "Nothing smaller" in said and "would take about 321 such speakers" in said


@pytest.mark.parametrize("name, size", [("none", None), ("s-norm", None), ("as-norm", "20 top cohort scores")])
def test_normalisation_is_named(results, name, size):
    evaluate = results.params.evaluate.model_copy(update={"normalisation": name})
    said = _said(replace(results, params=results.params.model_copy(update={"evaluate": evaluate})), "material")
    assert (f"Scores: {name}" in said) == (name != "none") and (size or "") in said


def test_paragraphs_and_lists_are_unwrapped():
    text = "one\nparagraph\n\n- an item\n  of two lines\n- another\n\n## A title\n"
    assert prose.blocks(text) == ["one paragraph", ["an item of two lines", "another"], "## A title"]
    assert prose.reflow(text) == "one paragraph\n\n- an item of two lines\n- another\n\n## A title"


def test_all_figures_of_the_contract_are_in_the_table(results):
    rows = {
        (section.title, label): [str(cell) for cell in cells]
        for section in tables.everything(results)
        for label, cells in section.rows
    }
    change_of_eer = rows["Difference to fp32, all test speakers", "EER, points"]
    assert change_of_eer == ["–", "+0.10 (−0.20 to +0.30)", "+0.10 (−0.20 to +0.30)"]
    assert rows["Computation, 3 s of audio", "multiply-accumulates moved to INT8"] == ["0 %", "99.6 %", "99.6 %"]
    over_speechbrain = rows["Time measured, 3 s of audio", "times as fast as SpeechBrain ²"]
    assert over_speechbrain[:2] == ["2.20 (2.10 to 2.30)", "5.50 (5.04 to 5.98)"]
    assert rows["Time measured, 3 s of audio", "times as fast as fp32.onnx ²"][1] == "2.50 (2.40 to 2.60)"


def test_environment_shows_where_runs_differ(results):
    fp32 = results.models["fp32"]
    other = replace(fp32, timing=fp32.timing | {"cpu": {"model": "another CPU", "extensions": []}})
    facts = dict(environment.facts(replace(results, models=results.models | {"fp32": other})))
    assert facts["CPU"] == f"another CPU / {fp32.timing['cpu']['model']}"
    assert facts["onnxruntime"] == fp32.timing["versions"]["onnxruntime"]


@pytest.mark.parametrize(
    "text, expected",
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
def test_numbers(text, expected):
    assert text == expected
