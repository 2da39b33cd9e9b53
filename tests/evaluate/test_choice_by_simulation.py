"""How often a model is chosen whose true loss is as large as the margin: at most in 5 % of validation sets, over all
models tried; and how often one that loses nothing, on as many speakers as are said to be needed.

Validation sets are clustered by speaker: speakers differ in how far their utterances scatter, and utterances of one
share that. The truth is the mean over many large sets, of the EER as it is counted. Every one of four trials and the PTQ
model lose just the margin.
"""

import numpy as np
import pytest

from src.common.params import Margins
from src.evaluate import metrics, validation
from src.evaluate.validation import Loss, Speech
from src.search import choice
from tests.evaluate import simulation

TRIALS = 4
LOOSE = 0.99  # of the other metric's margin


def embeddings(rng, speakers, utterances, noise, damage, models):
    """fp32's and those of so many models, each with damage of its own."""
    first = simulation.embeddings(rng, speakers, utterances, noise, damage=0)[0]
    return [first, *(first + damage * noise * rng.normal(size=first.shape) for _ in range(models))]


def losses(rng, speakers, utterances, noise, damage, gallery, models):
    """Those of so many models on one validation set."""
    speech = Speech(simulation.rows(speakers, utterances), 1, gallery)
    drawn = embeddings(rng, speakers, utterances, noise, damage, models)
    first, *others = (validation.measure(model, speech) for model in drawn)
    return [validation.losses(other, first) for other in others]


def truth(rng, utterances, noise, damage, gallery, sets):
    """Of each metric, the loss on endless speakers."""
    speech, found = Speech(simulation.rows(100, utterances), 1, gallery), []
    for _ in range(sets):
        first, second = (
            (metrics.eer(*simulation.all_scores(model, 100)), -validation.measure(model, speech).top1.mean())
            for model in embeddings(rng, 100, utterances, noise, damage, 1)
        )
        found.append(np.subtract(second, first))
    return dict(zip(validation.METRICS, np.mean(found, axis=0).tolist(), strict=True))


def is_chosen(trials: list[dict[str, Loss]], ptq: dict[str, Loss], margins: Margins) -> bool:
    """Whether an INT8 model is chosen: a trial, and then again its model, or the PTQ model."""
    level = validation.trial_level(len(trials))
    rows = [
        {"trial": i, "gmacs": 1.0 + i, "size_mb": 1.0, "objective": 0.0, "noninferior": passes}
        for i, passes in enumerate(validation.assured(each, margins, level) for each in trials)
    ]
    row = choice.select(rows)
    tested = [ptq, *([trials[int(row["trial"])]] if row else [])]
    return any(validation.verdict(each, margins) == "passes" for each in tested)


def shares(seed, speakers, utterances, noise, damage, gallery, sets, truth_sets):
    """{metric at the margin: share of validation sets in which a model is chosen}."""
    rng = np.random.default_rng(seed)
    true = truth(rng, utterances, noise, damage, gallery, truth_sets)
    assert all(loss > 0 for loss in true.values())
    judged = {key: Margins(**{**dict.fromkeys(true, LOOSE), key: loss}) for key, loss in true.items()}
    chosen = {key: [] for key in judged}
    for _ in range(sets):
        *trials, ptq = losses(rng, speakers, utterances, noise, damage, gallery, TRIALS + 1)
        for key, margins in judged.items():
            chosen[key].append(is_chosen(trials, ptq, margins))
    return {key: float(np.mean(values)) for key, values in chosen.items()}


def test_a_model_at_the_margin_is_seldom_chosen_quick():
    found = shares(0, 24, 4, 0.6, 0.5, 12, sets=60, truth_sets=40)
    assert all(share <= 0.1 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speakers", "utterances", "noise", "damage", "gallery"),
    [
        (24, 10, 0.3, 0.25, 23),  # EER 2 %
        (24, 10, 0.45, 0.25, 23),  # 6 %
        (24, 4, 0.6, 0.5, 12),
        (48, 6, 0.6, 0.5, 24),
        (96, 4, 0.7, 0.3, 48),
    ],
)
def test_a_model_at_the_margin_is_chosen_in_at_most_5_percent(speakers, utterances, noise, damage, gallery):
    found = shares(1, speakers, utterances, noise, damage, gallery, sets=300, truth_sets=200)
    print(f"{speakers} speakers, {utterances} utterances: " + ", ".join(f"{k} {v:.1%}" for k, v in found.items()))
    assert all(share <= 0.05 for share in found.values()), found


@pytest.mark.slow
def test_on_the_speakers_needed_a_model_that_loses_nothing_mostly_passes():
    rng, margins = np.random.default_rng(2), Margins(eer=0.01, top1=0.04)

    # Two models alike: each is the other's fp32, and neither loses on the whole.
    def pair(speakers):
        _, *two = embeddings(rng, speakers, 5, 0.6, 0.3, 2)
        speech = Speech(simulation.rows(speakers, 5), 1, 24)
        return validation.losses(*(validation.measure(model, speech) for model in two))

    needed = int(np.median([validation.speakers_needed(pair(60), margins) for _ in range(20)]))
    assert 25 < needed < 1000
    passed = np.mean([validation.verdict(pair(needed), margins) == "passes" for _ in range(200)])
    print(f"{needed} speakers: {passed:.0%} pass")
    assert 0.7 < passed < 0.97
