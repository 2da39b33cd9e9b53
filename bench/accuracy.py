"""What each model's embeddings are worth: how near SpeechBrain's, and their EER on the test split."""

import numpy as np
from tqdm import tqdm

from bench.models import REFERENCE
from src.data.recordings import load_audio
from src.evaluate import accuracy, result, test_set
from src.runtime.scoring import normalised


def measure(models, rows, config):
    """{name: {cosine_mean, cosine_min, eer, eer_ci}} over the test split, each utterance whole.

    models: {name: callable} with REFERENCE among them, whose embeddings the cosines are to (None for another encoder). rows: all of the
    manifest; config: the parameters. Scores are cosines, not normalised. Fractions; the interval is at 95 %.
    """
    test = test_set.load(rows, config)
    embeddings = {name: [] for name in models}
    for row in tqdm(test.rows, "accuracy", unit="utterance", disable=None):
        waveform = load_audio(row)[None]
        for name, model in models.items():
            embeddings[name].append(model(waveform).reshape(-1))
    reference = normalised(np.stack(embeddings[REFERENCE]).astype(np.float64))
    found = {}
    for name, own in embeddings.items():
        own = np.stack(own).astype(np.float64)
        comparable = own.shape == reference.shape  # other encoders have other dimensions
        cosines = (normalised(own) * reference).sum(axis=1) if comparable else None
        figures = accuracy.figures(test, result.score_uncalibrated(own, test), config.evaluate.bootstrap, config.seed)
        found[name] = {
            "cosine_mean": float(cosines.mean()) if comparable else None,
            "cosine_min": float(cosines.min()) if comparable else None,
            "eer": figures["eer"],
            "eer_ci": figures["eer_ci"],
        }
    return found
