"""The stages on real speech and on the published architecture, and the training of the shipped encoder."""

import csv
import shutil
from collections import defaultdict

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from tests.workspace import ROOT, SMALL, hub_program, read, run, run_all, workspace


@pytest.mark.slow
@pytest.mark.parametrize("network", ["ecapa", "xvector", "resnet"])
def test_pretrain_makes_an_encoder_that_the_pipeline_loads(tmp_path, network):
    from src.encoder.labels import training_speakers
    from src.encoder.load import load

    folder = workspace(tmp_path / "run", {"pretrain": {"speakers": 8, "utterances_per_speaker": 4, "epochs": 1}})
    shutil.rmtree(folder / "models/pretrained")
    output = run(folder, "pretrain", *([] if network == "ecapa" else ["--network", network]))
    assert output.returncode == 0, output.stderr
    made = folder / f"models/pretrained/{network}-mini"
    assert load(made).encode_batch(torch.zeros(1, 16_000)).numel() == 192
    assert len(training_speakers(str(made), None)) == 8
    assert sum(path.stat().st_size for path in (ROOT / "models/pretrained/ecapa-mini").iterdir()) <= 8e6


def test_published_encoder_on_superb_si_from_the_hub(shared, tmp_path):
    """Top-1 is that of a loop over the embeddings that shares nothing with the trials."""
    folder = workspace(
        tmp_path / "run",
        {
            **SMALL,
            "data": {"source": "hub", "speakers": 10, "utterances_per_speaker": 5, "max_seconds": 2.0},
            "encoder": {"source": "speechbrain/spkrec-ecapa-voxceleb"},
            "evaluate": {"bootstrap": 100, "protocol": "superb-si", "enrolments": 2},
        },
    )
    hub = (*hub_program(shared), "--")
    run_all(folder, "sample_data", "baseline", before=hub, HF_HOME=str(tmp_path / "hub"))
    with open(folder / "data/manifest.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows if row["seen"] == "0"} == {"validation", "test"}
    assert {row["split"] for row in rows if row["seen"] == "1"} == {"calibration", "finetune"}
    model = onnxruntime.InferenceSession(folder / "models/fp32.onnx")
    enrolled, probes = defaultdict(list), []
    for row in rows:
        if row["split"] == "test":
            waveform = soundfile.read(folder / row["path"], dtype="float32")[0]
            embedding = model.run(["embedding"], {"waveform": waveform[None]})[0][0].astype(float)
            embedding /= np.linalg.norm(embedding)
            if row["part"] == "train":
                enrolled[row["speaker"]].append(embedding)
            else:
                assert row["part"] == "test"
                probes.append((row["speaker"], embedding))
    assert {len(embeddings) for embeddings in enrolled.values()} == {2} and len(probes) == 3 * len(enrolled)
    means = {speaker: sum(vectors) / np.linalg.norm(sum(vectors)) for speaker, vectors in enrolled.items()}
    right = [max(means, key=lambda name: means[name] @ probe) == speaker for speaker, probe in probes]
    measured = read(folder, "baseline")
    assert measured["parity_cosine"] > 0.99999
    assert measured["top1_accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert measured["trials"] == len(means) * len(probes) and measured["target_trials"] == len(probes)
