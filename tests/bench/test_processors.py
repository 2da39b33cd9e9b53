"""A file of the pipeline gives the answers that were evaluated on every kind of processor that can be had here."""

import numpy as np
import pytest
import soundfile

from bench import processors
from bench.webassembly import UnavailableError
from src.runtime import calibration
from tests.workspace import SMALL, run, workspace

LOWEST = {"fp32": 0.99999, "ptq": 0.9995}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("processors") / "run", SMALL)
    for stage in ("sample_data", "baseline", "ptq"):
        output = run(folder, stage)
        assert output.returncode == 0, output.stderr
    return folder / "models"


@pytest.fixture(scope="module")
def waveforms(shared):
    """3 s of two recordings each of four speakers."""
    samples = []
    for speaker in sorted((shared / "speech").iterdir()):
        recordings = [soundfile.read(path, dtype="float32")[0] for path in sorted(speaker.rglob("*.flac"))]
        samples += [samples[:48000] for samples in recordings if len(samples) >= 48000][:2]
        if len(samples) >= 8:
            break
    return np.stack(samples[:8])


@pytest.mark.slow
@pytest.mark.parametrize("name", LOWEST)
@pytest.mark.parametrize("title", processors.ENGINES)
def test_the_same_answers_on(title, name, models, waveforms):
    model = models / f"{name}.onnx"
    fitted, why = calibration.of_model(model)
    assert fitted, why
    try:
        embeddings = processors.ENGINES[title](model, waveforms)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    cosines, decided_otherwise = processors.compare(
        processors.native(model, waveforms), embeddings, fitted.threshold_eer
    )
    assert cosines.min() >= LOWEST[name] and decided_otherwise == 0


def test_a_saturating_sum_would_be_seen():
    """The comparison sees embeddings as far off as those of 8-bit weights without VNNI, and a decision that they turn."""
    reference = np.array([[1.0, 0.0], [0.8, 0.6]], np.float32)
    cosines, decided_otherwise = processors.compare(reference, np.array([[1, 0.0], [0.7, 0.714]], np.float32), 0.75)
    assert cosines.min() < LOWEST["ptq"] and decided_otherwise == 1
