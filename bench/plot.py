"""The results as pictures, readable on a light and on a dark page."""

import io

import matplotlib
from matplotlib.figure import Figure

from bench.models import OURS
from src.common.files import write_text

PEER, OWN = "#8a8f98", "#1f6fb2"
LINES = ("#444444", "#1f6fb2", "#1f6fb2", "#c2571a", "#c2571a")  # SpeechBrain, fp32 and qat on both engines
DASHES = ("-", "-", "--", "-", "--")
STYLE = {
    "svg.hashsalt": "bench",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}
MAIN = {"threads": 1, "seconds": 3, "batch": 1}


def bars(path, results):
    """Median time of every model in MAIN, or where it was not measured in the first setting."""
    settings = results["settings"]
    setting = next((each for each in settings if MAIN.items() <= each.items()), settings[0])
    taken = dict(reversed(setting["models"].items()))

    def draw(figure):
        axes = figure.subplots()
        medians = [each["median_ms"] for each in taken.values()]
        spread = [
            [each["median_ms"] - each["low_ms"] for each in taken.values()],
            [each["high_ms"] - each["median_ms"] for each in taken.values()],
        ]
        drawn = axes.barh(
            [results["models"][name]["title"] for name in taken],
            medians,
            xerr=spread,
            height=0.7,
            color=[OWN if name in OURS else PEER for name in taken],
            error_kw={"linewidth": 0.8, "ecolor": "#222222"},
        )
        labels = [
            f"{each['speedup']:.1f}×" + ("" if cosine is None else f", cosine {cosine:.4f}")
            for each, cosine in ((each, results["models"][name]["cosine_mean"]) for name, each in taken.items())
        ]
        axes.bar_label(drawn, labels, padding=4, fontsize=8)
        axes.margins(x=0.3)
        axes.set(
            xlabel="ms, median and quartiles\ntimes as fast as SpeechBrain eager; cosine to its embeddings",
            title=f"{setting['seconds']:g} s of audio, batch {setting['batch']}, {setting['threads']} thread(s), "
            f"{results['conditions']['cpu']['model']}",
        )

    _save(path, (9, 0.8 + 0.33 * len(taken)), draw)


def scaling(path, results):
    """Time for a second of audio against length and batch, and utterances a second of extraction."""
    found = results["scaling"]

    def draw(figure):
        panels = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 1))
        for axes, points, key in zip(panels, (found["lengths"], found["batches"]), ("seconds", "batch")):
            for name, colour, dash in zip(found["worst_step"], LINES, DASHES):
                each = [p["models"][name]["median_ms"] / (p["seconds"] * p["batch"]) for p in points]
                axes.loglog(
                    [p[key] for p in points],
                    each,
                    "o",
                    linestyle=dash,
                    color=colour,
                    markersize=3.5,
                    label=results["models"][name]["title"],
                )
            ticks = [p[key] for p in points]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.tick_params(axis="x", which="minor", bottom=False)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.grid(axis="y", which="both")
        panels[0].set(title="ms for 1 s of audio, batch 1", xlabel="length, s")
        panels[1].set(title=f"ms for 1 s of audio, {found['batches'][0]['seconds']:g} s each", xlabel="batch")
        runs = found["extraction"]
        names = [f"{run['model'].removesuffix('.onnx')}, {run['workers']} w., {run['utterances']}" for run in runs]
        drawn = panels[2].barh(names[::-1], [run["utterances_per_second"] for run in runs[::-1]], color=OWN)
        panels[2].bar_label(
            drawn,
            ["" if run["peak_mb"] is None else f"{run['peak_mb']:.0f} MB" for run in runs[::-1]],
            padding=3,
            fontsize=8,
        )
        panels[2].margins(x=0.3)
        panels[2].set(title="extraction", xlabel="utterances a second; peak memory")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=5)

    _save(path, (11, 3.8), draw)


def _save(path, size, draw):
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, facecolor="white")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    write_text(path, file.getvalue())
