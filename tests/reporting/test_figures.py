"""Curves and figures."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from src.evaluate import bootstrap, metrics
from src.reporting import breakdown, det, figures
from src.reporting.results import load
from tests.reporting.conftest import write


@pytest.fixture
def results(place):
    return load(write())


def _points(results, name):
    trials = results.test.verification
    _, p_fa, p_miss = metrics.det_points(metrics.rank(results.models[name].scores, trials.targets))
    return list(zip(p_fa, p_miss, strict=True))


def test_curve_is_of_the_scores(results):
    for name, curve in det.curves(results).items():
        points = _points(results, name)
        assert list(zip(curve.p_fa, curve.p_miss, strict=True)) == points  # few enough to keep them all
        eer = metrics.eer(results.models[name].scores, results.test.verification.targets)
        assert curve.eer == pytest.approx(eer, abs=1e-6)


def test_curve_covers_the_trials_of_the_verdict(place):
    results = load(write(seen_speakers=6))
    curve = det.curves(results)["fp32"]
    assert (curve.p_fa * 10 * 9 * 5).round(6).tolist() == (curve.p_fa * 10 * 9 * 5).round().tolist()
    assert curve.eer == results.models["fp32"].accuracy["unseen"]["eer"]


def test_every_curve_has_a_band_that_holds_it(results):
    for curve in det.curves(results).values():
        lowest = np.array([curve.p_miss[curve.p_fa == p_fa].min() for p_fa in curve.p_fa])
        assert (curve.low <= curve.high).all() and (curve.high - curve.low).max() > 0.1
        assert ((curve.low <= lowest + 1e-9) & (lowest <= curve.high + 1e-9)).mean() > 0.9
        assert (np.diff(curve.low) >= 0).all() and (np.diff(curve.high) >= 0).all()


def test_bands_are_of_the_resamples_of_the_figures(results):
    """A resample's EER is at most e where its miss rate is at most e at a false-alarm rate of e: so the band meets
    the diagonal at the quantiles of the EER."""
    trials, config = results.test.verification, results.params
    sides = trials.enrol_speakers[trials.enrol], trials.test_speakers[trials.test]
    counts = bootstrap.resamples(len(trials.speakers), config.evaluate.bootstrap, config.seed)
    for name, curve in det.curves(results).items():
        eers = bootstrap.detection(results.models[name].scores, trials.targets, *sides, counts)["eer"]
        for edge, quantile in ((curve.low, 0.025), (curve.high, 0.975)):
            met = np.interp(0, edge - curve.p_fa, edge)
            assert met == pytest.approx(np.nanquantile(eers, quantile), abs=0.005)


def test_rows_are_fractions_with_the_models_in_order(results):
    rows = det.rows(det.curves(results))
    assert list(dict.fromkeys(row[0] for row in rows)) == ["fp32", "ptq", "qat"]
    assert all(0 <= float(rate) <= 1 for row in rows for rate in row[1:])


def test_figures_are_described_and_take_the_colours_of_the_page(results):
    titles = {name: model.title for name, model in results.models.items()}
    rows, layers = breakdown.load()
    pictures = [
        figures.det(det.curves(results), titles, "all"),
        figures.histograms(results, "all"),
        figures.layers(results.layers),
        figures.front(results.frontier, results.trials, results.chosen, 0.005),
        figures.spectra(results.spectra),
        breakdown.conditions(rows),
        breakdown.differences(rows),
        breakdown.layers(layers),
    ]
    for picture in pictures:
        root = ElementTree.fromstring(picture.svg)
        assert root.get("role") == "img" and root.get("width") is None
        title, description = root[0], root[1]
        assert root.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
        assert title.text == picture.title and len(description.text) > 40
        assert not re.search("|".join(figures.COLOURS.values()), picture.svg)
        assert "var(--" in picture.svg and "<style" not in picture.svg and "font-family" not in picture.svg
        drawn = set(re.findall(r"(?:fill|stroke): (#\w+)", picture.svg))
        assert not drawn, "a colour that does not follow the theme"


def test_layers_are_grouped_and_add_up():
    rows = [
        {"layer": f"blocks.{block}.res2net_block.blocks.{i}.conv", "gmacs": "0.1"}
        for block in range(1, 21)
        for i in (0, 1)
    ]
    picture = figures.layers([*rows, {"layer": "mfa.conv", "gmacs": "1"}])
    assert "6 smaller parts" in picture.svg and "5.0000 GMACs in all" in picture.caption
    assert picture.svg.count("res2net_block") >= figures.MOST_BARS - 1


def test_perfect_scores_can_be_drawn(place):
    results = load(write(damage={"fp32": 0, "ptq": 0, "qat": 0}))
    perfect = np.where(results.test.verification.targets, 0.9, 0.1)
    for name, model in results.models.items():
        results.models[name] = dataclasses.replace(model, scores=perfect)
    curves = det.curves(results)
    titles = {name: model.title for name, model in results.models.items()}
    ElementTree.fromstring(figures.det(curves, titles, "all").svg)
    ElementTree.fromstring(figures.histograms(results, "all").svg)
