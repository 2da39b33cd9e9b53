"""Where quantisation hurts, in words."""

from src.evaluate.conditions import COLUMNS
from src.reporting import breakdown


def rows(*differences):
    """Rows of breakdown.csv, from (condition, level, model, difference, low, high) with differences in points."""
    table = []
    for condition, level, model, *points in differences:
        numbers = [str(number / 100) for number in points]
        table.append(dict(zip(COLUMNS, (condition, level, model, "0.05", "0.03", "0.08", *numbers), strict=True)))
        reference = dict.fromkeys(("difference", "difference_low", "difference_high"), "")
        table.append(table[-1] | {"model": "fp32"} | reference)
    return table


def test_losses_are_those_whose_interval_lies_above_0_the_largest_first():
    text = breakdown.losses(
        rows(
            ("seconds", "1", "ptq", 0.30, 0.10, 0.50),
            ("seconds", "full", "ptq", 0.00, -0.20, 0.20),
            ("enrolment_seconds", "full", "ptq", 0.00, -0.20, 0.20),
            ("channel_both", "opus", "ptq", 1.20, 0.40, 2.00),
            ("snr", "0", "ptq", 5.00, -0.10, 9.00),
            ("snr", "clean", "ptq", 0.00, -0.20, 0.20),
        )
    )
    assert text.startswith(
        "INT8 PTQ was shown to lose EER in 2 of 4 conditions: channel of both sides: Opus (+1.20: +0.40 to +2.00); "
        "test utterance: 1 s (+0.30: +0.10 to +0.50). "
    )


def test_where_none_is_shown_the_largest_that_is_not_excluded_is_named():
    text = breakdown.losses(
        rows(
            ("seconds", "full", "ptq", -0.20, -0.30, -0.10),
            ("snr", "0", "ptq", 0.10, -0.10, 0.90),
            ("channel", "gsm", "ptq", 0.50, 0.00, 0.80),
            ("channel", "gsm", "qat", 0.50, 0.01, 0.80),
        )
    )
    assert (
        "INT8 PTQ was shown to lose EER in none of 3 conditions; the largest loss that is not excluded is in "
        "babble: 0 dB (+0.10: \N{MINUS SIGN}0.10 to +0.90)." in text
    )
    assert "INT8 QAT was shown to lose EER in 1 of 1 conditions: channel of the test utterance: GSM" in text
