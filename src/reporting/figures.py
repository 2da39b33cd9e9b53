"""The report's figures, as SVG that takes fonts and colours from the page, and so follows its theme."""

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from scipy.special import ndtri

from src.evaluate import metrics
from src.reporting.det import Curve
from src.reporting.numbers import share
from src.reporting.results import DIFFERENCE, Results

# Colours that stand for the page's CSS variables of the same name.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "fp32": "#040404",
    "ptq": "#050505",
    "qat": "#060606",
    "target": "#070707",
    "nontarget": "#080808",
    "panel": "#090909",
}
DASHES = {"fp32": "-", "ptq": (0, (5, 1.5)), "qat": (0, (1.5, 1.2))}
MARKERS = {"fp32": "o", "ptq": "s", "qat": "D"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": COLOURS["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}
LEGEND = {"columnspacing": 1.1, "handlelength": 1.6, "handletextpad": 0.5, "borderaxespad": 0}
SIZE = 4.4, 4.7  # inches; as wide as a phone shows without shrinking the letters; two side by side are equally high
MOST_BARS = 15
LINES = ("fp32", "ptq", "qat", "target", "nontarget")  # colours of lines that stand for no model, and their dashes
LINE_DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1.2)))
RATES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Picture:
    """`svg` is markup with a title and a description for those who do not see it; `caption` is text."""

    name: str
    title: str
    caption: str
    svg: Markup


def picture(
    name: str, title: str, description: str, caption: str, draw: Callable[[Figure], None], height: float = SIZE[1]
) -> Picture:
    """A Picture of what `draw` draws on a matplotlib Figure, `height` inches high."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], height))
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Picture(name, title, caption, Markup(_inline(file.getvalue(), name, title, description)))


def bars(figure: Figure, names: Sequence[str], values: Sequence[float], colour: str) -> tuple[Axes, BarContainer]:
    """Horizontal bars with their names, the first on top: the axes, and the bars."""
    axes = figure.subplots()
    drawn = axes.barh(range(len(names)), values, color=COLOURS[colour], height=0.7)
    axes.set_yticks(range(len(names)), names, color=COLOURS["ink"])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return axes, drawn


def _legend(figure, axes, columns=3):
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns, **LEGEND)


def _inline(svg, name, title, description):
    """Matplotlib's file as an element of a page: no rules that leak, no ids that clash, described."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    view = re.findall(r'viewBox="[^"]*"', svg)[0]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {view} '
        f'role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>'
    )
    return opening + svg[svg.index(">") + 1 :].rstrip()


def det(curves: dict[str, Curve], titles: dict[str, str], group: str, mark: str = "") -> Picture:
    """DET curves on probit axes, each with its band. `group` names the speakers; `mark` goes into the title."""
    rates = np.concatenate([rates for curve in curves.values() for rates in (curve.p_fa, curve.p_miss)])
    lowest = max(RATES[0], rates[rates > 0].min())
    ticks = [rate for rate in RATES if rate >= lowest]
    low, high = ndtri(0.8 * lowest), ndtri(0.5)

    eers = {name: f"{100 * curve.eer:.2f} %" for name, curve in curves.items()}

    def probit(rates):
        return np.clip(ndtri(rates), low - 1, high + 1)

    def draw(figure):
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=COLOURS["line"], linewidth=0.8)
        for name, curve in curves.items():
            bounds = probit(curve.low), probit(curve.high)
            axes.fill_between(probit(curve.p_fa), *bounds, color=COLOURS[name], alpha=0.1, linewidth=0)
            for bound in bounds:
                axes.plot(probit(curve.p_fa), bound, color=COLOURS[name], linestyle=DASHES[name], linewidth=0.7)
        for name, curve in curves.items():
            line = {"color": COLOURS[name], "linestyle": DASHES[name], "linewidth": 1.8}
            axes.plot(probit(curve.p_fa), probit(curve.p_miss), label=f"{titles[name]}, EER {eers[name]}", **line)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set(xlabel="false alarms, %", title="misses, %")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ndtri(ticks), [f"{100 * rate:g}" for rate in ticks])
        _legend(figure, axes, columns=2)

    listing = "; ".join(f"{titles[name]} {eer}" for name, eer in eers.items())
    return picture(
        "det",
        f"Detection error trade-off{mark}",
        f"Misses against false alarms at every threshold, on probit scales. Equal error rates: {listing}.",
        f"Misses against false alarms at every threshold, {group}; lower left is better, the diagonal meets "
        "each curve at its EER. Between the thin lines lie 95 % of the curves of resampled speakers. "
        "metrics/det.csv has the numbers.",
        draw,
    )


def histograms(results: Results, group: str, mark: str = "") -> Picture:
    """Scores of target and non-target trials, one panel a model; `group` and `mark` as in `det`."""
    judged = results.judged
    targets = results.test.verification.targets[judged]
    scores = {model.title: model.scores[judged] for model in results.models.values()}
    edges = np.histogram_bin_edges(np.concatenate(list(scores.values())), 60)
    kinds = (("nontarget", "different speakers", ~targets), ("target", "same speaker", targets))

    def draw(figure):
        panels = figure.subplots(len(scores), sharex=True, sharey=True)
        for axes, (title, values) in zip(panels, scores.items(), strict=True):
            for name, label, mask in kinds:
                height = np.histogram(values[mask], edges)[0] / mask.sum()
                axes.stairs(height, edges, fill=True, color=COLOURS[name], alpha=0.35, label=label)
                axes.stairs(height, edges, color=COLOURS[name], linewidth=1.2)
            threshold = metrics.eer_threshold(metrics.rank(values, targets))
            axes.axvline(threshold, color=COLOURS["ink"], linewidth=1, linestyle=(0, (3, 2)), label="EER threshold")
            axes.set(title=title, yticks=[])
            axes.spines["left"].set_visible(False)
        plain = results.params.evaluate.normalisation == "none"
        panels[-1].set_xlabel("cosine of the embeddings" if plain else "normalised score")
        _legend(figure, panels[0])

    means = "; ".join(
        f"{title}: {values[targets].mean():.2f} and {values[~targets].mean():.2f}" for title, values in scores.items()
    )
    return picture(
        "scores",
        f"Scores{mark}",
        "Histograms of the scores of same-speaker and different-speaker trials, one for "
        f"each model. Mean of each kind: {means}.",
        f"Share of the trials at each score, {group}, both kinds to the same area. The less they overlap, the "
        "fewer errors.",
        draw,
    )


def layers(rows: list[dict]) -> Picture:
    """GMACs of SpeechBrain's network by part, the largest first."""
    parts = defaultdict(float)
    for row in rows:
        parts[_part(row["layer"])] += float(row["gmacs"])
    total = sum(parts.values())
    largest = sorted(parts.items(), key=lambda part: -part[1])
    if len(largest) > MOST_BARS:
        rest = largest[MOST_BARS:]
        largest = [*largest[:MOST_BARS], (f"{len(rest)} smaller parts", sum(gmacs for _, gmacs in rest))]

    def draw(figure):
        names, gmacs = zip(*largest, strict=True)
        axes, drawn = bars(figure, names, gmacs, "fp32")
        axes.bar_label(drawn, [share(value / total) for value in gmacs], padding=4, color=COLOURS["muted"], fontsize=9)
        axes.set(xlabel="GMACs", xlim=(0, 1.18 * max(gmacs)))

    listing = "; ".join(f"{name} {gmacs:.4f}" for name, gmacs in largest[:5])
    return picture(
        "layers",
        "Multiply-accumulates by part",
        f"Bars of the GMACs of each part of the network, {total:.4f} in all. The largest: {listing}.",
        f"SpeechBrain’s network before the rewrite, {total:.4f} GMACs in all by fvcore’s count. "
        "metrics/macs.csv has each layer.",
        draw,
    )


def _part(layer):
    """SE-Res2Net blocks are named by their units (blocks.1.tdnn1), the rest by its name (blocks.0, mfa)."""
    names = layer.split(".")
    return ".".join(names[:1] if names[0] != "blocks" else names[:3] if len(names) > 3 else names[:2])


def front(sizes: list[dict], trials: list[dict], chosen: dict | None, margin: float) -> Picture:
    """EER on validation speakers, less that of fp32, of every size that nobody trained and of every trial, against what it
    computes. chosen: the row of either that was chosen, if any."""

    def points(rows):
        values = [float(row["gmacs"]) for row in rows], *([100 * float(row[key]) for row in rows] for key in DIFFERENCE)
        gmacs, value, low, high = (np.array(each) for each in values)
        return gmacs, value, np.maximum([value - low, high - value], 0)

    untrained, trained = points(sizes), points(trials)

    def draw(figure):
        axes = figure.subplots()
        axes.axhline(0, color=COLOURS["muted"], linewidth=1.2, label="fp32")
        axes.axhline(100 * margin, color=COLOURS["muted"], linewidth=1.2, linestyle=(0, (3, 2)), label="margin")
        for (gmacs, value, reach), style, label in (
            (untrained, {"fmt": "o-", "color": COLOURS["ptq"], "markersize": 4, "linewidth": 1.4}, "not trained"),
            (trained, {"fmt": "D", "color": COLOURS["qat"], "markersize": 6}, "trained (trials)"),
        ):
            if len(gmacs):
                axes.errorbar(gmacs, value, reach, elinewidth=1, label=label, **style)
        if chosen:
            gmacs, value, _ = points([chosen])
            ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.5}
            axes.plot(gmacs, value, "o", markeredgecolor=COLOURS["muted"], label="chosen", **ring)
        lowest, highest = min([0, *untrained[1], *trained[1]]), max([*untrained[1], *trained[1], 100 * margin])
        room = 0.35 * (highest - lowest)
        axes.set(xlabel="GMACs", title="EER less fp32’s on validation speakers, points", xscale="log")
        axes.set_ylim(lowest - room, min(highest, 600 * margin) + room)
        axes.set_xticks(untrained[0], [f"{gmacs:.2g}" for gmacs in untrained[0]])
        axes.set_xticks([], minor=True)
        _legend(figure, axes)

    which = f"one of {float(chosen['gmacs']):.4f} was chosen" if chosen else "no smaller one was chosen"
    return picture(
        "front",
        "The search: operations against accuracy",
        f"A line of {len(sizes)} sizes without training, from {untrained[0].max():.4f} to {untrained[0].min():.4f} GMACs, "
        f"with EER differences to fp32 from {untrained[1].min():+.2f} to {untrained[1].max():+.2f} points, and points of "
        f"{len(trials)} trials; {which}.",
        "In INT8, with 95 % intervals. The smallest network that is shown to lose less than the margins, in EER and in "
        "top-1, by so much that a test is expected to confirm it, is chosen, trained or not. metrics/frontier.csv and metrics/trials.csv have every one.",
        draw,
    )


def spectra(rows: list[dict]) -> Picture:
    """What share of each layer's effect on the embedding is left out when only so many components are kept. Without the
    small convolutions inside Res2Net blocks, of which there are too many to be told apart."""
    layers = defaultdict(list)
    for row in (row for row in rows if ".res2net." not in row["layer"]):
        layers[row["layer"]].append((int(row["components"]), 1 - float(row["explained"]), int(row["rank"])))

    def draw(figure):
        axes = figure.subplots()
        for number, (name, points) in enumerate(layers.items()):
            components, lost, ranks = np.array(points).T
            shares, lost = components / components[-1], np.maximum(lost, 1e-5)
            colour, dashes = COLOURS[LINES[number % len(LINES)]], LINE_DASHES[number // len(LINES) % len(LINE_DASHES)]
            axes.plot(shares, lost, linewidth=1.4, label=name, color=colour, linestyle=dashes)
            if ranks[0] < components[-1]:
                at = np.searchsorted(components, ranks[0])
                axes.plot(shares[at], lost[at], "o", color=colour)
        axes.set(
            xlabel="components kept, as a share of the layer’s outputs",
            yscale="log",
            ylim=(1e-5, 1),
            title="share of the layer’s effect on the embedding left out",
        )
        _legend(figure, axes)

    sizes = [(name, points[0][2], points[-1][0]) for name, points in layers.items()]
    ranks = "; ".join(f"{name} {rank} of {outputs}" for name, rank, outputs in sizes if rank < outputs)
    return picture(
        "spectra",
        "How redundant each layer is",
        f"A falling line for each of {len(layers)} layers. Kept in the chosen model: {ranks or 'all of every layer'}.",
        "The faster a line falls, the more of that layer can go: components of its outputs over calibration speech, by "
        "how far the embedding moves without them. A dot is what the chosen model keeps; layers without one stayed whole. metrics/spectra.csv has every layer.",
        draw,
    )
