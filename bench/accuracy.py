"""What each model's embeddings are worth: how near SpeechBrain's, and their EER on the test split."""

from collections.abc import Callable, Mapping

import numpy as np
from tqdm import tqdm

from bench.models import REFERENCE
from src.common.params import Params
from src.data.manifest import Row
from src.data.recordings import load_audio
from src.data.trial_list import read_trial_list
from src.evaluate import accuracy
from src.evaluate.trials import evaluated_rows
from src.runtime.scoring import normalised


def measure(
    models: Mapping[str, Callable[[np.ndarray], np.ndarray]], rows: list[Row], config: Params
) -> dict[str, dict]:
    """{name: {cosine_mean, cosine_min, eer, eer_ci}} over the test split, each utterance whole.

    models: {name: callable} with REFERENCE among them, whose embeddings the cosines are to. rows: all of the
    manifest; config: the parameters. Scores are cosines, not normalised. Fractions; the interval is at 95 %.
    """
    tested = evaluated_rows(rows, config.evaluate.protocol, config.evaluate.enrolments)
    trial_list = config.data.trials and read_trial_list(config.data.trials)
    test = accuracy.make_test(tested, config.evaluate.enrolments, trial_list)
    embeddings = {name: [] for name in models}
    for row in tqdm(tested, "accuracy", unit="utterance", disable=None):
        waveform = load_audio(row)[None]
        for name, model in models.items():
            embeddings[name].append(model(waveform).reshape(-1))
    reference = normalised(np.stack(embeddings[REFERENCE]).astype(np.float64))
    measured = {}
    for name, vectors in embeddings.items():
        vectors = np.stack(vectors).astype(np.float64)
        cosines = (normalised(vectors) * reference).sum(axis=1)
        figures = accuracy.figures(
            test, accuracy.score_uncalibrated(vectors, test), config.evaluate.bootstrap, config.seed
        )
        measured[name] = {
            "cosine_mean": float(cosines.mean()),
            "cosine_min": float(cosines.min()),
            "eer": figures["eer"],
            "eer_ci": figures["eer_ci"],
        }
    return measured
