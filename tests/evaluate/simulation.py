"""Simulated test sets whose true error rates are known."""

from collections import defaultdict

import numpy as np

from src.data.manifest import Row
from src.evaluate import metrics, open_set, result, score_calibration, scores, test_set

DIMENSIONS = 24


def rows(speakers, utterances, seen=0, sessions=0):
    """Manifest rows, `utterances` of each speaker, the first `seen` of which the encoder was trained on; of so many
    sessions, if any, that the names tell."""
    return [
        Row(
            f"s{s:03d}/{f'v{u * sessions // utterances}/' if sessions else ''}u{u}.wav",
            f"s{s:03d}",
            "test",
            f"data/audio/{s:03d}{u}.flac",
            3.0,
            int(s < seen),
        )
        for s in range(speakers)
        for u in range(utterances)
    ]


def embeddings(rng, speakers, utterances, noise, unevenness=0.35, damage=0.25, sessions=0):
    """Embeddings by two models, [speakers * utterances, DIMENSIONS] each; the second is the first and some
    noise.

    Speakers differ in how far their utterances lie from their mean (log-normal, `unevenness`), as real ones
    do. With sessions, half of an utterance's variance about its speaker's mean is its session's.
    """
    mean = rng.normal(size=(speakers, 1, DIMENSIONS)) * np.linspace(1, 0.3, DIMENSIONS)
    spread = noise * np.exp(unevenness * rng.normal(size=(speakers, 1, 1)))
    apart = rng.normal(size=(speakers, utterances, DIMENSIONS))
    if sessions:
        session = rng.normal(size=(speakers, sessions, DIMENSIONS))
        apart = (apart + session[:, np.arange(utterances) * sessions // utterances]) / np.sqrt(2)
    first = mean + spread * apart
    second = first + damage * noise * rng.normal(size=first.shape)
    return [model.reshape(-1, DIMENSIONS) for model in (first, second)]


def all_scores(embeddings, speakers):
    """(cosines of all pairs of utterances, whether both are of one speaker)."""
    vectors = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(vectors), 1)
    each = len(vectors) // speakers
    return (vectors @ vectors.T)[first, second], first // each == second // each


def calibrations(rng, speakers, utterances, noise, **kind):
    """The two models' calibrations on speakers of their own. kind: of the embeddings."""
    validation = test_set.make_test(rows(speakers, utterances), 1).verification
    return [
        score_calibration.fit(scores.cosine(model, validation), validation.targets)
        for model in embeddings(rng, speakers, utterances, noise, **kind)
    ]


def truth(rng, test, fitted, speakers, utterances, noise, populations=4, sets=1000, **kind):
    """What the two models' figures would be on endless speakers, scores calibrated with `fitted`; top-1 among
    as many speakers as the test set has. With sessions, the two utterances of a target trial are of different ones as
    often as in the test. Of the galleries of the test: ("top1" or "fnir", size)."""
    figures = [defaultdict(list) for _ in range(2)]
    sessions = kind.get("sessions", 0)
    each = utterances if sessions else 3
    for _ in range(populations):
        # Trials are of the first utterance and another, as in the test.
        for model, values, calibrated in zip(embeddings(rng, 20_000, each, noise, **kind), figures, fitted):
            unit = (model / np.linalg.norm(model, axis=1, keepdims=True)).reshape(-1, each, DIMENSIONS)
            pairs = unit[:, [0, 0]]
            pairs[:, 1] = unit[np.arange(len(unit)), 1 + np.arange(len(unit)) % (each - 1)]
            cosines = np.concatenate(
                [(pairs[:, 0] * np.roll(pairs[:, 1], shift, axis=0)).sum(axis=1) for shift in range(21)]
            )
            targets = np.repeat([True, False], [len(pairs), 20 * len(pairs)])
            for key, value in metrics.detection(cosines, targets, llrs=calibrated.llrs(cosines)).items():
                values[key].append(value)
            grid = pairs[:1500, 0] @ pairs[:1500, 1].T
            searched = open_set.searches(grid, np.arange(1500))
            for size in open_set.sizes(speakers):
                missed = open_set.fnir(searched, size, np.zeros(1500, dtype=int), np.ones((1, 1)))
                values["fnir", size].append(missed[0])
                values["top1", size].append(open_set.top1(searched.ranks, size, 1499).mean())
    for _ in range(sets):
        for model, values, calibrated in zip(embeddings(rng, speakers, utterances, noise, **kind), figures, fitted):
            ranks = result.score_test(model, test, calibrated).ranks["all"]
            values["top1_accuracy"].append(np.mean([rank == 1 for _, _, rank in ranks]))
    return [{key: np.mean(values) for key, values in model.items()} for model in figures]
