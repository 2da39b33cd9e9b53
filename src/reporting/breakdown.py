"""Where quantisation hurts: by length, noise, codec, room and sex, and by group of layers."""

import numpy as np

from src.reporting.figures import COLOURS, LEGEND, MARKERS, Picture, bars, picture
from src.reporting.numbers import fixed, places
from src.reporting.results import TITLES, read_csv
from src.reporting.tables import markdown

# Of each condition: the title of its axis, what stands before a level, the level's form.
NAMES = {
    "seconds": ("seconds of the test utterance", "test utterance", "{} s"),
    "enrolment_seconds": ("seconds of the enrolment", "enrolment", "{} s"),
    "snr": ("babble, dB signal to noise", "babble", "{} dB"),
    "channel": ("channel of the test utterance", "channel of the test utterance", "{}"),
    "channel_both": ("channel of both sides", "channel of both sides", "{}"),
    "sex": ("sexes of different speakers", "sexes", "{}"),
}
CHANNELS = {"alaw": "A-law", "gsm": "GSM", "opus": "Opus", "mp3": "MP3", "reverberation": "room"}
WHOLE = ("full", "clean")
SEXES = (
    "By sex, all target trials count, and of the non-target trials only those between speakers of the same sex or "
    "of different ones: same-sex trials are the harder ones, because all their impostors sound more alike."
)
ABOUT = (
    "Test utterances or enrolments cut to a length, test utterances with the voices of others added, and either test "
    "utterances or both sides sent through a channel: A-law or GSM 06.10 at 8 kHz, Opus at 12 kbit/s, MP3 at 32 kbit/s, "
    "a reverberant room. What is not named stays whole and clean."
)


def load() -> tuple[list[dict], list[dict]]:
    """(rows of breakdown.csv, rows of sensitivity.csv). Raises InputError when one is missing or damaged."""
    return (read_csv("breakdown", "breakdown"), read_csv("sensitivity", "breakdown"))


def conditions_table(rows: list[dict]) -> str:
    """EER of every model in every condition, and its difference to fp32, as Markdown; under it what `sex` means."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = {}
    for row in _distinct(rows):
        line = lines.setdefault((row["condition"], row["level"]), [])
        text = f"{100 * float(row['eer']):.2f}"
        if row["difference"]:
            text += f" ({_difference(row)})"
        line.append(text)
    table = markdown(
        ["EER, % (points to fp32)", *(TITLES[model] for model in models)],
        [[_label(*key), *cells] for key, cells in lines.items()],
    )
    return f"{table}\n\n{SEXES}" if any(condition == "sex" for condition, _ in lines) else table


def losses(rows: list[dict]) -> str:
    """The conditions in which quantised models were shown to lose, a sentence a model, as Markdown."""
    sentences = []
    quantised = [row for row in _distinct(rows) if row["difference"]]
    for model in dict.fromkeys(row["model"] for row in quantised):
        compared = [row for row in quantised if row["model"] == model]
        worst = sorted(compared, key=lambda row: -float(row["difference"]))
        lost = [row for row in worst if float(row["difference_low"]) > 0]
        where = "; ".join(f"{_label(row['condition'], row['level'])} ({_difference(row)})" for row in lost)
        if lost:
            sentences.append(
                f"{TITLES[model]} was shown to lose EER in {len(lost)} of {len(compared)} conditions: {where}."
            )
            continue
        most = max(compared, key=lambda row: float(row["difference_high"]))
        sentences.append(
            f"{TITLES[model]} was shown to lose EER in none of {len(compared)} conditions; the largest loss that is not "
            f"excluded is in {_label(most['condition'], most['level'])} ({_difference(most)})."
        )
    chance = "In brackets: points to fp32 and the 95 % interval; of forty such intervals one lies above 0 by chance."
    return " ".join((*sentences, chance))


def _distinct(rows):
    """Without the repetitions: the whole and clean trials are there once for each kind of condition."""
    return [row for row in rows if row["level"] not in WHOLE or row["condition"] == "seconds"]


def _difference(row):
    numbers = [100 * float(row[key]) for key in ("difference", "difference_low", "difference_high")]
    value, low, high = (fixed(number, places(numbers, 2), sign=True) for number in numbers)
    return f"{value}: {low} to {high}"


def _label(condition, level):
    _, name, form = NAMES[condition]
    return "whole and clean" if level in WHOLE else f"{name}: {form.format(CHANNELS.get(level, level))}"


def layers_table(rows: list[dict]) -> str:
    """The rows of sensitivity.csv as Markdown."""
    return markdown(
        ["quantised", "embedding, dB", "embedding, cosine", "own output, dB"],
        [
            [
                row["group"],
                f"{float(row['embedding_sqnr_db']):.1f}",
                f"{float(row['embedding_cosine']):.5f}",
                f"{float(row['output_sqnr_db']):.1f}",
            ]
            for row in rows
        ],
    )


def conditions(rows: list[dict], mark: str = "") -> Picture:
    """EER in every condition, a panel a condition. `mark` goes into the title."""
    eers = "; ".join(
        f"{_label(row['condition'], row['level'])} {100 * float(row['eer']):.2f} %"
        for row in _distinct(rows)
        if row["model"] == "fp32"
    )
    return picture(
        "conditions",
        f"EER by condition{mark}",
        f"Equal error rates with 95 % intervals by {_kinds(rows)}, for each model. fp32: {eers}.",
        f"{_about(rows)} metrics/breakdown.csv has the numbers.",
        _panels(rows, ("eer", "low", "high"), "EER, %", from_zero=True),
        _height(rows),
    )


def differences(rows: list[dict], mark: str = "") -> Picture:
    """What quantisation changes of the EER in every condition, a panel a condition."""
    quantised = [row for row in rows if row["difference"]]
    worst = max(quantised, key=lambda row: float(row["difference"]))
    change = fixed(100 * float(worst["difference"]), 2, sign=True)
    where = f"{TITLES[worst['model']]}, {_label(worst['condition'], worst['level'])}"
    return picture(
        "differences",
        f"Where quantisation hurts{mark}",
        f"Differences of the equal error rate to fp32, with 95 % intervals, by {_kinds(rows)}. The largest is "
        f"{change} points, {where}.",
        "EER less that of fp32 on the same trials, with its 95 % interval: above 0 quantisation costs accuracy. "
        f"{losses(rows)} {ABOUT}",
        _panels(quantised, ("difference", "difference_low", "difference_high"), "EER less that of fp32, points"),
        _height(rows),
    )


def _about(rows):
    return f"{ABOUT} {SEXES}" if any(row["condition"] == "sex" for row in rows) else ABOUT


def _height(rows):
    return 0.8 + 1.3 * len({row["condition"] for row in rows})


def _kinds(rows):
    return ", by ".join(NAMES[kind][0] for kind in NAMES if any(row["condition"] == kind for row in rows))


def _panels(rows, keys, title, from_zero=False):
    """What draws a `picture`: a value, its lower and its upper bound, of every model at every level."""
    kinds = [kind for kind in NAMES if any(row["condition"] == kind for row in rows)]
    models = [model for model in TITLES if any(row["model"] == model for row in rows)]

    def draw(figure):
        panels = figure.subplots(len(kinds), sharey=True, squeeze=False)[:, 0]
        for axes, kind in zip(panels, kinds, strict=True):
            panel = [row for row in rows if row["condition"] == kind]
            levels = list(dict.fromkeys(row["level"] for row in panel))
            for place, model in enumerate(models):
                numbers = 100 * np.array([[float(row[key]) for key in keys] for row in panel if row["model"] == model])
                value, low, high = numbers.T
                x = np.arange(len(value)) + 0.2 * (place - (len(models) - 1) / 2)
                axes.vlines(x, low, high, color=COLOURS[model], linewidth=1.4)
                axes.plot(x, value, MARKERS[model], color=COLOURS[model], markersize=5, label=TITLES[model])
            if not from_zero:
                axes.axhline(0, color=COLOURS["muted"], linewidth=1)
            axes.set_xticks(range(len(levels)), [CHANNELS.get(level, level) for level in levels])
            axes.set(xlabel=NAMES[kind][0], xlim=(-0.5, len(levels) - 0.5))
            axes.grid(visible=False, axis="x")
            axes.locator_params(axis="y", nbins=4)
        panels[0].set_title(title)
        if from_zero:
            panels[0].set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, **LEGEND)

    return draw


def layers(rows: list[dict]) -> Picture:
    """Bars of the SQNR of the embedding, the most sensitive group first."""
    ordered = sorted(rows, key=lambda row: float(row["embedding_sqnr_db"]))
    names = [row["group"] for row in ordered]
    values = [float(row["embedding_sqnr_db"]) for row in ordered]

    def draw(figure):
        axes, _ = bars(figure, names, values, "ptq")
        axes.set(xlabel="signal to quantisation noise of the embedding, dB")

    listing = "; ".join(f"{name} {value:.1f} dB" for name, value in zip(names, values, strict=True))
    return picture(
        "sensitivity",
        "Sensitivity of the layers",
        f"Bars of the signal-to-quantisation-noise ratio of the embedding: {listing}.",
        "One group of layers in INT8 at a time, after calibration and without fine-tuning; the shorter the "
        "bar, the more this group hurts. metrics/sensitivity.csv has the numbers.",
        draw,
    )
