"""The difference of two models on the same trials."""
import numpy as np

from src.evaluate import bootstrap, metrics, scores


def eer_difference(embeddings, reference, trials, resamples, seed):
    """EER of one model less that of another, and its 95 % interval: (value, low, high), fractions.

    embeddings, reference: [rows, dim], of the rows that the trials were made from, by either model; resamples:
    of the speakers, the same for both.
    """
    sides = trials.enrol_speakers[trials.enrol], trials.test_speakers[trials.test]
    used, columns = np.unique(np.concatenate(sides), return_inverse=True)
    enrol, test = np.split(columns, 2)
    counts = bootstrap.resamples(len(used), resamples, seed)
    estimates, values = [], []
    for own in (embeddings, reference):
        found = scores.cosine(np.asarray(own), trials)
        estimates.append(metrics.eer(found, trials.targets))
        values.append(bootstrap.detection(found, trials.targets, enrol, test, counts, priors=())["eer"])
    value = float(estimates[0] - estimates[1])
    return value, *bootstrap.difference_interval(value, values[0] - values[1], counts)
