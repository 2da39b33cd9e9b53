"""Where quantisation hurts: by length, noise and sex of the test utterances, and by group of layers."""
from src.reporting.figures import COLOURS, DASHES, LEGEND, picture
from src.reporting.numbers import fixed, places
from src.reporting.results import TITLES, read_csv
from src.reporting.tables import markdown

NAMES = {"seconds": ("seconds of the test utterance", "{} s"), "snr": ("babble, dB signal to noise", "{} dB"),
         "sex": ("sexes of different speakers", "{}")}
WHOLE = ("full", "clean")
SEXES = ("By sex, all target trials count, and of the non-target trials only those between speakers of the same sex or "
         "of different ones: same-sex trials are the harder ones, because all their impostors sound more alike.")


def load():
    """(rows of breakdown.csv, rows of sensitivity.csv). Raises InputError when one is missing or damaged."""
    return (
        read_csv("breakdown.csv", "breakdown", (
            "condition", "level", "model", "eer", "difference", "difference_low", "difference_high")),
        read_csv("sensitivity.csv", "breakdown", (
            "group", "embedding_sqnr_db", "embedding_cosine", "output_sqnr_db")),
    )


def conditions_table(rows):
    """EER of every model in every condition, and its difference to fp32, as Markdown; under it what `sex` means."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = {}
    for row in rows:
        line = lines.setdefault((row["condition"], row["level"]), [])
        text = f"{100 * float(row['eer']):.2f}"
        if row["difference"]:
            numbers = [100 * float(row[key]) for key in ("difference", "difference_low", "difference_high")]
            value, low, high = (fixed(number, places(numbers, 2), sign=True) for number in numbers)
            text += f" ({value}: {low} to {high})"
        line.append(text)
    table = markdown(["EER, % (points to fp32)", *(TITLES[model] for model in models)],
                     [[_label(*key), *cells] for key, cells in lines.items()])
    return f"{table}\n\n{SEXES}" if any(condition == "sex" for condition, _ in lines) else table


def _label(condition, level):
    shown = level if level in WHOLE else NAMES[condition][1].format(level)
    return f"{NAMES[condition][0].split(',')[0].split(' of ')[0]}: {shown}"


def layers_table(rows):
    """The rows of sensitivity.csv as Markdown."""
    return markdown(
        ["quantised", "embedding, dB", "embedding, cosine", "own output, dB"],
        [[row["group"], f"{float(row['embedding_sqnr_db']):.1f}", f"{float(row['embedding_cosine']):.5f}",
          f"{float(row['output_sqnr_db']):.1f}"] for row in rows])


def conditions(rows):
    """EER against length and against noise, a line a model."""
    kinds = [kind for kind in NAMES if any(row["condition"] == kind for row in rows)]

    def draw(figure):
        panels = figure.subplots(len(kinds), squeeze=False)[:, 0]
        for axes, kind in zip(panels, kinds):
            own = [row for row in rows if row["condition"] == kind]
            levels = list(dict.fromkeys(row["level"] for row in own))
            for model, title in TITLES.items():
                eer = [100 * float(row["eer"]) for row in own if row["model"] == model]
                axes.plot(range(len(eer)), eer, color=COLOURS[model], linestyle=DASHES[model], marker="o",
                          markersize=4, linewidth=1.8, label=title)
            axes.set_xticks(range(len(levels)), levels)
            axes.set(xlabel=NAMES[kind][0], ylabel="EER, %")
            axes.set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, **LEGEND)

    told = [row for row in rows if row["difference"]]
    worst = max(told, key=lambda row: float(row["difference"]))
    change = fixed(100 * float(worst["difference"]), 2, sign=True)
    return picture(
        "conditions", "Where accuracy goes",
        f"Equal error rate by {', by '.join(NAMES[kind][0] for kind in kinds)}, a line for each model. The "
        f"largest change to fp32 is {change} points, {TITLES[worst['model']]}, "
        f"{_label(worst['condition'], worst['level'])}.",
        "Test utterances cut to a length, or with the voices of others added; enrolments stay whole and "
        f"clean. {f'{SEXES} ' if 'sex' in kinds else ''}metrics/breakdown.csv has the intervals.",
        0.6 + 1.9 * len(kinds), draw)


def layers(rows):
    """Bars of the SQNR of the embedding, the most sensitive group first."""
    ordered = sorted(rows, key=lambda row: float(row["embedding_sqnr_db"]))
    names = [row["group"] for row in ordered]
    values = [float(row["embedding_sqnr_db"]) for row in ordered]

    def draw(figure):
        axes = figure.subplots()
        axes.barh(range(len(names)), values, color=COLOURS["ptq"], height=0.7)
        axes.set_yticks(range(len(names)), names, color=COLOURS["ink"])
        axes.set(xlabel="signal to quantisation noise of the embedding, dB")
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")

    told = "; ".join(f"{name} {value:.1f} dB" for name, value in zip(names, values))
    return picture(
        "sensitivity", "Sensitivity of the layers",
        f"Bars of the signal-to-quantisation-noise ratio of the embedding: {told}.",
        "One group of layers in INT8 at a time, after calibration and without fine-tuning; the shorter the "
        "bar, the more this group hurts. metrics/sensitivity.csv has the numbers.",
        0.8 + 0.22 * len(names), draw)
