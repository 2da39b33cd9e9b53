"""The report's tables: the summary that fits a terminal, and all the figures."""

from dataclasses import dataclass

from src.evaluate.accuracy import KEYS
from src.reporting.numbers import MEASURES, difference, level, points, share, speed
from src.reporting.words import MARK, named

FOOTNOTE = f"{MARK} Speakers that the encoder was trained on are among these: recall of them, not accuracy on new ones."


@dataclass(frozen=True)
class Cell:
    value: str = "–"
    interval: str = ""

    def __str__(self):
        return f"{self.value} ({self.interval})" if self.interval else self.value


@dataclass(frozen=True)
class Section:
    """Rows are (label, one Cell a model)."""

    title: str
    rows: list


def summary(results):
    """Header and rows, one a model (and a group of speakers, where there are several), within 120 columns."""
    header = [
        "model",
        "top-1, %",
        "EER, %",
        "minDCF 0.01",
        "Δ EER, points [95 %]",
        "GMACs",
        "in INT8",
        "MB",
        "ms",
        "speed-up",
    ]
    rows = []
    for group in results.groups:
        for model in results.models.values():
            figures, mark = model.over(group), f" {MARK}" if results.over_seen(group) else ""
            name = model.title if len(results.groups) == 1 else f"{model.name}, {group}"
            accuracy = [level(key, figures)[0] for key in KEYS[:3]]
            change = "{} [{}]".format(*difference("eer", figures)) if "difference" in figures else "–"
            costs = _costs(model) if group == results.groups[0] else [""] * 5
            rows.append([name + mark, *accuracy, change.replace(" to ", ", "), *costs])
        name = "no model ²" if len(results.groups) == 1 else f"none ², {group}"
        accuracy = [level(key, results.logmel(group))[0] for key in KEYS[:3]]
        rows.append([name + mark, *accuracy, "–", *[""] * 5])
    return header, rows


def _costs(model):
    speedup = "1" if model.name == "fp32" else speed(model.taken)[0]
    return [
        f"{model.cost['gmacs']:.3f}",
        share(model.cost["int8_mac_share"]),
        f"{model.cost['size_mb']:.2f}",
        f"{model.taken['median_ms']:.1f}",
        speedup,
    ]


def everything(results):
    """All figures as Sections, a column for each model."""
    models = results.models.values()
    sections = []
    for group in results.groups:
        name = named(group, results)
        figures = [model.over(group) for model in models]
        sections.append(
            Section(
                f"Accuracy, {name}",
                [(_titled(key, MEASURES[key].unit), [Cell(*level(key, each)) for each in figures]) for key in KEYS],
            )
        )
        sections.append(
            Section(
                f"Difference to fp32, {name}",
                [
                    (
                        _titled(key, MEASURES[key].points),
                        [Cell(*difference(key, each)) if "difference" in each else Cell() for each in figures],
                    )
                    for key in KEYS
                ]
                + _judged(figures, results.params.evaluate.margin),
            )
        )
    seconds = f"{results.profile['seconds']:g} s of audio"
    before = results.profile["gmacs"]
    sections.append(
        Section(
            f"Computation, {seconds}",
            [
                ("GMACs left in the file", [Cell(f"{model.cost['gmacs']:.4f}") for model in models]),
                (
                    f"operations removed, of SpeechBrain’s {before:.4f} GMACs",
                    [Cell(share(max(0, 1 - model.cost["gmacs"] / before))) for model in models],
                ),
                ("multiplications moved to INT8", [Cell(share(model.cost["int8_mac_share"])) for model in models]),
                ("parameters, million", [Cell(f"{model.cost['params_million']:.2f}") for model in models]),
                ("file size, MB", [Cell(f"{model.cost['size_mb']:.2f}") for model in models]),
            ],
        )
    )
    speeds = {model.name: Cell(*speed(model.taken)) for model in models}
    sections.append(
        Section(
            f"Time measured, {seconds}",
            [
                (
                    "latency, ms (quartiles)",
                    [
                        Cell(f"{taken['median_ms']:.1f}", f"{taken['low_ms']:.1f} to {taken['high_ms']:.1f}")
                        for taken in (model.taken for model in models)
                    ],
                ),
                ("times as fast as SpeechBrain ¹", [speeds["fp32"], Cell(), Cell()]),
                ("times as fast as fp32.onnx ¹", [Cell("1"), speeds["ptq"], speeds["qat"]]),
            ],
        )
    )
    return sections


def _judged(figures, margin):
    """Rows on what the EER differences show: within the margin or not, and the smallest to be shown."""

    def cells(key, text):
        return [Cell(text(each[key])) if key in each else Cell() for each in figures]

    return [
        (f"EER not higher by {points(margin)}", cells("noninferior", ("not shown", "shown").__getitem__)),
        ("smallest EER difference to be shown, 80 % power", cells("smallest_detectable_eer", points)),
    ]


def notes(results):
    """What must be read with `everything`."""
    marked = [FOOTNOTE] if results.marked else []
    return [
        "With each figure is its 95 % interval, with a latency its quartiles. A difference counts as shown "
        "where its interval excludes 0. Each interval is at 95 % by itself: of twenty, one misses by chance.",
        *marked,
        "Cllr, in bits, is what the scores cost as likelihood ratios at every prior at once: 0 at best, 1 when they "
        "tell nothing. An affine map fitted on validation speakers calibrates them; the minimum Cllr is that of the "
        "best monotone map of the test scores themselves, and its interval holds the truth in 87 to 93 % of test "
        "sets only.",
        "¹ Median over the rounds of one run in which both took turns. Every model has a run of its own, so "
        "that this is not the quotient of the latencies above, and ratios of different runs must not be "
        "multiplied.",
    ]


def footnotes(results):
    """What must be read with `summary`."""
    marked = [FOOTNOTE] if results.marked else []
    return [
        *marked,
        "² The cosine of the mean and standard deviation of log-mel features, with no model: what channel, room "
        "and timbre alone give on these trials.",
    ]


def _titled(key, unit):
    return f"{MEASURES[key].title}, {unit.strip()}" if unit else MEASURES[key].title


def markdown(header, rows):
    """A pipe table with its columns aligned, so that it reads in a terminal too."""
    widths = [max(len(str(row[column])) for row in (header, *rows)) for column in range(len(header))]
    aligned = [["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]]

    def line(cells):
        first, *others = (str(cell) for cell in cells)
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:]))
        return f"| {' | '.join([first.ljust(widths[0]), *numbers])} |"

    return "\n".join(map(line, [header, *aligned, *rows]))
