"""The report's numbers as text: the headline, the summary that fits a terminal, and all the figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from src.evaluate import metrics
from src.evaluate.accuracy import ALL, KEYS
from src.reporting import decision
from src.reporting.numbers import MEASURES, count, difference, largest_loss, level, points, product, share, speed
from src.reporting.results import Model, Results

MARK = "†"
# The keys of the table of all figures: every actual cost beside its minimum.
ROWS = (
    "top1_accuracy",
    "eer",
    *(key(prior) for prior in metrics.PRIORS for key in (metrics.act_dcf_key, metrics.dcf_key)),
    "cllr",
    "min_cllr",
    *map(metrics.fnmr_key, metrics.FMRS),
)
GROUPS = {ALL: "all test speakers", "unseen": "unseen speakers", "seen": "seen speakers"}


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
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Headline:
    """A large figure, what it is, and its interval or, for a count, what it was counted from."""

    value: str
    unit: str
    title: str
    notes: list[str]


@dataclass(frozen=True)
class Comparison:
    """An accuracy key of an INT8 model beside fp32, as text with units; `largest_loss` is the interval's worse end."""

    key: str
    title: str
    value: str
    reference: str
    effect: decision.Effect
    difference: str
    interval: str
    largest_loss: str


def mark(seen: bool) -> str:
    """What is put behind a title where figures include speakers that the encoder was trained on."""
    return f" {MARK}" if seen else ""


def named(group: str, results: Results) -> str:
    """A group of speakers, marked where the encoder was trained on some of them."""
    return GROUPS[group] + mark(results.over_seen(group))


def headline(results: Results) -> list[Headline]:
    """Four figures of the model to use: operations, speed, EER, size."""
    fp32, profile, main = results.models["fp32"], results.profile, results.groups[0]
    model = decision.choice(results) or fp32
    removed = max(0, 1 - model.cost["gmacs"] / profile["gmacs"])
    figures = model.over(main)
    if model is fp32:
        value, interval = level("eer", figures)
        eer = Headline(value, "%", "EER", [f"95 % CI {interval}", "fp32.onnx is an exact rewrite"])
    else:
        value, interval = difference("eer", figures)
        eer = Headline(
            value,
            "points",
            "EER difference to fp32",
            [f"95 % CI {interval}", f"paired, over {count(figures['speakers'], 'speaker')}"],
        )
    faster, interval = speed(_over_speechbrain(model, fp32))
    run = "one run, in turns" if model is fp32 else "product of two runs’ ratios"
    return [
        Headline(
            share(removed).removesuffix(" %"),
            "%",
            "operations removed",
            [f"{profile['gmacs']:.3f} → {model.cost['gmacs']:.3f} GMACs", "an exact count"],
        ),
        Headline(faster, "×", "as fast as SpeechBrain", [f"95 % CI {interval}", run]),
        eer,
        Headline(
            f"{model.cost['size_mb']:.2f}",
            "MB",
            "size of the file",
            [f"SpeechBrain’s checkpoint: {profile['checkpoint_mb']:.2f} MB"],
        ),
    ]


def _over_speechbrain(model, fp32):
    """The speed-up of a model over SpeechBrain; an INT8 model was timed beside fp32.onnx only."""
    return fp32.taken if model is fp32 else product(fp32.taken, model.taken)


def comparisons(model: Model, results: Results) -> list[Comparison]:
    """Every accuracy key of an INT8 model, over the speakers that the verdict is about."""
    figures, fp32 = (each.over(results.groups[0]) for each in (model, results.models["fp32"]))
    rows = []
    for key in KEYS:
        measure, (change, interval) = MEASURES[key], difference(key, figures)
        value, reference = (level(key, each)[0] + measure.unit for each in (figures, fp32))
        loss = largest_loss(key, figures) + measure.points
        effect = decision.effect(key, figures)
        rows.append(Comparison(key, measure.title, value, reference, effect, change + measure.points, interval, loss))
    return rows


def summary(results: Results) -> tuple[list[str], list[list[str]]]:
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
        marked, alone = mark(results.over_seen(group)), len(results.groups) == 1
        for model in results.models.values():
            figures = model.over(group)
            name = model.title if alone else f"{model.name}, {group}"
            accuracy = [level(key, figures)[0] for key in KEYS[:3]]
            change = "{} [{}]".format(*difference("eer", figures)) if "difference" in figures else "–"
            costs = _costs(model) if group == results.groups[0] else [""] * 5
            rows.append([name + marked, *accuracy, change.replace(" to ", ", "), *costs])
        name = "log-mel ¹" if alone else f"log-mel ¹, {group}"
        accuracy = [level(key, results.logmel(group))[0] for key in KEYS[:3]]
        rows.append([name + marked, *accuracy, "–", *[""] * 5])
    return header, rows


def _costs(model):
    return [
        f"{model.cost['gmacs']:.3f}",
        share(model.cost["int8_mac_share"]),
        f"{model.cost['size_mb']:.2f}",
        f"{model.taken['median_ms']:.1f}",
        "1" if model.name == "fp32" else speed(model.taken)[0],
    ]


def everything(results: Results) -> list[Section]:
    """All figures, a column for each model."""
    models, before = results.models.values(), results.profile["gmacs"]
    sections = []
    for group in results.groups:
        name = named(group, results)
        figures = [model.over(group) for model in models]
        levels, changes = map(list, zip(*(_rows(key, figures) for key in ROWS), strict=True))
        searched, searched_changes = _identification([each["identification"] for each in figures])
        changes = [row for row in changes + searched_changes if any(cell.value != "–" for cell in row[1])]
        changes += _non_inferiority(figures, results.params.evaluate.margins.eer)
        sections += [
            Section(f"Accuracy, {name}", levels),
            Section(f"Identification, {name}", searched),
            Section(f"Difference to fp32, {name}", changes),
        ]

    def row(label: str, cell: Callable[[Model], Cell]) -> tuple[str, list[Cell]]:
        return label, [cell(model) for model in models]

    seconds, fp32 = f"{results.profile['seconds']:g} s of audio", results.models["fp32"]
    return [
        *sections,
        Section(
            f"Computation, {seconds}",
            [
                row("GMACs", lambda model: Cell(f"{model.cost['gmacs']:.4f}")),
                row(
                    f"operations removed, of SpeechBrain’s {before:.4f} GMACs",
                    lambda model: Cell(share(max(0, 1 - model.cost["gmacs"] / before))),
                ),
                row("multiply-accumulates moved to INT8", lambda model: Cell(share(model.cost["int8_mac_share"]))),
                row("parameters, million", lambda model: Cell(f"{model.cost['params_million']:.2f}")),
                row("file size, MB", lambda model: Cell(f"{model.cost['size_mb']:.2f}")),
            ],
        ),
        Section(
            f"Time measured, {seconds}",
            [
                row(
                    "latency, ms (quartiles)",
                    lambda model: Cell(
                        f"{model.taken['median_ms']:.1f}",
                        f"{model.taken['low_ms']:.1f} to {model.taken['high_ms']:.1f}",
                    ),
                ),
                row("times as fast as SpeechBrain ²", lambda model: Cell(*speed(_over_speechbrain(model, fp32)))),
                row(
                    "times as fast as fp32.onnx ²",
                    lambda model: Cell("1") if model is fp32 else Cell(*speed(model.taken)),
                ),
            ],
        ),
    ]


def _rows(key, figures, of=""):
    """The rows of a key, its levels and its differences to fp32. of: what the figures are about, behind the title."""
    refused = figures[0].get("refused", {}).get(key)
    note = f" (none: {refused})" if refused else ""
    measure = MEASURES[key]
    title = measure.title + of
    return (
        (_united(title, measure.unit) + note, [Cell(*level(key, each)) if key in each else Cell() for each in figures]),
        (
            _united(title, measure.points),
            [Cell(*difference(key, each)) if key in each.get("difference", ()) else Cell() for each in figures],
        ),
    )


def _identification(figures):
    """The rows of identification and of its differences to fp32: by gallery, and within a rank of all enrolled."""
    levels, changes = [], []
    refused = {"refused": figures[0].get("refused", {})}
    for galleries in zip(*(each.get("galleries", {}).values() for each in figures), strict=True):
        for key in ("top1", "fnir"):
            row, change = _rows(
                key, [gallery | refused for gallery in galleries], f", gallery of {galleries[0]['size']:,}"
            )
            levels.append(row)
            changes.append(change)
    for places in zip(*(list(each["cmc"].values())[1:] for each in figures), strict=True):
        cells = [Cell(*level("share", point)) for point in places]
        levels.append((f"within rank {places[0]['rank']} (CMC), %", cells))
    return levels, changes


def _non_inferiority(figures, margin):
    """Rows on what the EER differences show, and on what they could have shown."""

    def cells(key, text):
        return [Cell(text(each[key])) if key in each else Cell() for each in figures]

    return [
        (f"EER non-inferior, margin {points(margin)}", cells("noninferior", ("not shown", "shown").__getitem__)),
        ("minimum detectable effect on the EER, 80 % power", cells("smallest_detectable_eer", points)),
    ]


def _united(title, unit):
    return f"{title}, {unit.strip()}" if unit else title


def markdown(header: Sequence, rows: Sequence[Sequence]) -> str:
    """A pipe table with its columns aligned, so that it reads in a terminal too."""
    widths = [max(len(str(row[column])) for row in (header, *rows)) for column in range(len(header))]
    aligned = [["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]]

    def line(cells):
        first, *others = (str(cell) for cell in cells)
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        return f"| {' | '.join([first.ljust(widths[0]), *numbers])} |"

    return "\n".join(map(line, [header, *aligned, *rows]))
