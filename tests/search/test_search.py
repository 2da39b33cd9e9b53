import copy
import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from src.common.params import Margins, QatSearch
from src.data.manifest import Row
from src.evaluate import validation
from src.quantize import ptq, qat
from src.quantize.quantizer import GROUPS
from src.search import factorise, search, student, study, trial
from tests.quantize.conftest import FRAMES, Frames, exported

MARGINS = Margins(eer=0.9, top1=0.9)


def settings(**changes):
    return QatSearch(
        **{
            "n_trials": 3,
            "steps": 3,
            "final_steps": 4,
            "crop_seconds": 0.3,
            "batch_size": [4, 6],
            "learning_rate": {"low": 1e-4, "high": 1e-2},
            "weight_decay": {"low": 1e-6, "high": 1e-3},
            "speaker_loss_weight": {"low": 0.0, "high": 0.3},
            "structure": True,
            "kept_macs": {"low": 0.7, "high": 1.0},
            "storage": None,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def setup(network, features, speech, other_speech):
    """Fine-tuned on other speakers than those of the validation."""
    rows = [Row(f"u{i}", speaker, "validation", "", "", 1.0, 0, "") for i, speaker in enumerate(other_speech[1])]
    source = student.Source(
        network, features, factorise.spectra(network, features), "minmax", {**dict.fromkeys(GROUPS, 8), "mfa": 4}
    )
    validated = validation.Speech(rows, 1, 2)
    return trial.Setup(
        source, copy.deepcopy(network), Frames(), speech, other_speech, validated, MARGINS, FRAMES, "cpu", 5
    )


@pytest.fixture(scope="module")
def undisturbed(setup, tmp_path_factory):
    return search.run(setup, settings(), tmp_path_factory.mktemp("study"))


def test_all_trials_complete_and_have_what_is_known_of_them(setup, undisturbed):
    assert [row["trial"] for row in undisturbed.trials] == [0, 1, 2]
    assert len({row["learning_rate"] for row in undisturbed.trials}) == 3
    whole = factorise.multiplications(setup.source.network)
    for row in undisturbed.trials:
        for key in ("eer", "top1"):
            assert row[f"{key}_difference_low"] <= row[f"{key}_difference"] <= row[f"{key}_difference_high"]
        left = factorise.multiplications(
            factorise.factorise(setup.source.network, setup.source.spectra, setup.source.layer_ranks(row["kept_macs"]))
        )
        assert left <= whole and row["gmacs"] == pytest.approx(left * FRAMES / 1e9, rel=0.2)


def test_a_trial_can_be_made_again(setup, undisturbed):
    row = undisturbed.trials[1]
    layer_ranks = setup.source.layer_ranks(row["kept_macs"])
    network, loss = trial.train(setup, settings(), layer_ranks, search.hyperparameters(row), 3, "")
    assert loss == row["train_loss"]
    assert trial.validate(network, setup).objective == row["objective"]


def test_the_objective_is_of_the_validation_speakers_and_the_training_of_the_others(setup, undisturbed):
    """Both are swapped in a fixture where the two splits differ."""
    row = undisturbed.trials[0]
    swapped = dataclasses.replace(setup, finetune=setup.validation, validation=setup.finetune)
    layer_ranks, hyperparameters = setup.source.layer_ranks(row["kept_macs"]), search.hyperparameters(row)
    _network, loss = trial.train(swapped, settings(), layer_ranks, hyperparameters, 3, "")
    assert loss != row["train_loss"]
    assert trial.validate(setup.teacher, swapped).objective != undisturbed.reference
    waveforms, speakers = setup.validation
    embeddings = torch.cat([setup.teacher(torch.from_numpy(wave).view(1, -1, 80)) for wave in wrapped(waveforms)])
    numbers = torch.tensor([sorted(set(speakers)).index(speaker) for speaker in speakers])
    assert undisturbed.reference == pytest.approx(qat.leave_one_out_loss(embeddings, numbers).item(), rel=1e-4)


def wrapped(waveforms):
    """Each repeated to the length of the validation crops."""
    return [np.resize(waveform, trial.VALIDATION_SAMPLES) for waveform in waveforms]


def test_size_of_a_student_with_4_bit_layers_is_that_of_the_weights_in_its_file(setup, tmp_path):
    layer_ranks = setup.source.layer_ranks(0.8)
    path = exported(ptq.convert(setup.source.student(layer_ranks)), tmp_path / "student.onnx")
    tensors = onnx.load(path).graph.initializer
    weights = [t for t in tensors if t.data_type in (TensorProto.INT8, TensorProto.INT4) and len(t.dims) > 1]
    assert {t.data_type for t in weights} == {TensorProto.INT8, TensorProto.INT4}
    assert setup.source.cost(layer_ranks, FRAMES)[1] == sum(len(t.raw_data) for t in weights) / 1e6


def test_an_interrupted_search_ends_as_an_undisturbed_one(setup, undisturbed, tmp_path, monkeypatch):
    finetune, calls = qat.finetune, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finetune(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(qat, "finetune", killed)
        with pytest.raises(KeyboardInterrupt):
            search.run(setup, settings(), tmp_path)
        assert len(calls) == 2
        assert search.run(setup, settings(), tmp_path) == undisturbed
        assert len(calls) == 4  # the finished trial was not run again


def test_other_code_or_settings_are_another_study(setup, monkeypatch):
    before = search.fingerprint(setup, settings())
    assert search.fingerprint(setup, settings(n_trials=1)) == before != search.fingerprint(setup, settings(steps=2))
    monkeypatch.setattr(search, "CODE", search.CODE[:-1])
    assert search.fingerprint(setup, settings()) != before


def test_without_structure_every_operation_stays(setup, tmp_path):
    (row,) = search.run(setup, settings(n_trials=1, structure=False), tmp_path).trials
    assert row["kept_macs"] == 1 and row["gmacs"] == setup.source.cost(setup.source.layer_ranks(1.0), FRAMES)[0]


def test_the_objective_of_the_teacher_is_lower_than_that_of_noise(setup, undisturbed):
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((24, 24)).astype("float32"))
    assert undisturbed.reference < trial.objective(noise, setup)


def test_a_trial_has_to_pass_at_a_confidence_for_all_of_them_and_margins_are_no_part_of_the_study(
    setup, undisturbed, tmp_path
):
    """Its losses are kept: other margins, or more trials, only judge them anew."""
    search.run(setup, settings(), tmp_path)
    trials = study.open_study(search.fingerprint(setup, settings()), None, tmp_path)
    for number, (row, attempt) in enumerate(zip(undisturbed.trials, study.complete(trials, 3))):
        losses = {key: validation.Loss(**loss) for key, loss in attempt.user_attrs["losses"].items()}
        high = losses["eer"].high(validation.trial_level(3))
        assert high > losses["eer"].high()
        top1 = int(losses["top1"].high(validation.trial_level(3)) < MARGINS.top1)
        assert row["eer_difference_high"] == pytest.approx(losses["eer"].high(), abs=1e-6)
        for eer, passes in ((high + 1e-6, top1), (high - 1e-6, 0)):
            judged = dataclasses.replace(setup, margins=MARGINS.model_copy(update={"eer": eer}))
            assert search.run(judged, settings(), tmp_path).trials[number]["noninferior"] == passes
