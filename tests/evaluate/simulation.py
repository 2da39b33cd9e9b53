"""Simulated test sets whose true error rates are known."""

import numpy as np

from src.data.manifest import Row
from src.evaluate import accuracy, metrics, result, score_calibration, scores, test_set

DIMENSIONS = 24


def rows(speakers, utterances, seen=0):
    """Manifest rows, `utterances` of each speaker, the first `seen` of which the encoder was trained on."""
    return [
        Row(f"s{s:03d}/u{u}.wav", f"s{s:03d}", "test", f"data/audio/{s:03d}{u}.flac", 3.0, int(s < seen))
        for s in range(speakers)
        for u in range(utterances)
    ]


def embeddings(rng, speakers, utterances, noise, unevenness=0.35, damage=0.25):
    """Embeddings by two models, [speakers * utterances, DIMENSIONS] each; the second is the first and some
    noise.

    Speakers differ in how far their utterances lie from their mean (log-normal, `unevenness`), as real ones
    do.
    """
    mean = rng.normal(size=(speakers, 1, DIMENSIONS)) * np.linspace(1, 0.3, DIMENSIONS)
    spread = noise * np.exp(unevenness * rng.normal(size=(speakers, 1, 1)))
    first = mean + spread * rng.normal(size=(speakers, utterances, DIMENSIONS))
    second = first + damage * noise * rng.normal(size=first.shape)
    return [model.reshape(-1, DIMENSIONS) for model in (first, second)]


def calibrations(rng, speakers, utterances, noise):
    """The two models' calibrations on speakers of their own."""
    validation = test_set.make_test(rows(speakers, utterances), 1).verification
    return [
        score_calibration.fit(scores.cosine(model, validation), validation.targets)
        for model in embeddings(rng, speakers, utterances, noise)
    ]


def truth(rng, test, fitted, speakers, utterances, noise, populations=4, sets=1000):
    """What the two models' figures would be on endless speakers, scores calibrated with `fitted`; top-1 among
    as many speakers as the test set has."""
    found = [{key: [] for key in accuracy.KEYS} for _ in range(2)]
    for _ in range(populations):
        for model, own, calibrated in zip(embeddings(rng, 20_000, 2, noise), found, fitted):
            pairs = (model / np.linalg.norm(model, axis=1, keepdims=True)).reshape(-1, 2, DIMENSIONS)
            cosines = np.concatenate(
                [(pairs[:, 0] * np.roll(pairs[:, 1], shift, axis=0)).sum(axis=1) for shift in range(21)]
            )
            targets = np.repeat([True, False], [len(pairs), 20 * len(pairs)])
            for key, value in metrics.detection(cosines, targets, llrs=calibrated.llrs(cosines)).items():
                own[key].append(value)
    for _ in range(sets):
        for model, own, calibrated in zip(embeddings(rng, speakers, utterances, noise), found, fitted):
            ranks = result.score_test(model, test, calibrated).ranks["all"]
            own["top1_accuracy"].append(np.mean([rank == 1 for _, _, rank in ranks]))
    return [{key: np.mean(values) for key, values in own.items()} for own in found]
