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
from src.search import choice, frontier, search, structure, student, study, trial
from src.search.factorise import multiplications
from tests.quantize.conftest import FRAMES, Frames, exported

MARGINS = Margins(eer=0.9, top1=0.9)
SAMPLES = 4800


def settings(**changes):
    return QatSearch(
        **{
            "n_trials": 3,
            "steps": 3,
            "final_steps": 4,
            "crop_seconds": 0.3,
            "batch_size": [4, 6],
            "relative_rate": {"low": 1.0, "high": 100.0},
            "weight_decay": {"low": 1e-6, "high": 1e-3},
            "speaker_loss_weight": {"low": 0.0, "high": 0.3},
            "structure": True,
            "objective": "gmacs",
            "storage": None,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def setup(network, features, speech, other_speech):
    """Fine-tuned on other speakers than those of the validation."""
    rows = [Row(f"u{i}", speaker, "validation", "", "", 1.0, 0, "") for i, speaker in enumerate(other_speech[1])]
    source = student.Source(
        structure.measure(network, features), features, "minmax", {**dict.fromkeys(GROUPS, 8), "mfa": 4}
    )
    validated = validation.Speech(rows, 1, 2)
    return trial.Setup(
        source,
        copy.deepcopy(network),
        Frames(),
        speech,
        other_speech,
        validated,
        MARGINS,
        FRAMES,
        SAMPLES,
        100,
        "cpu",
        5,
    )


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The folder of the study of `undisturbed`."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def undisturbed(setup, studies):
    return search.run(setup, settings(), studies)


def test_no_more_crops_are_made_than_a_trial_takes(setup):
    waveforms = len(setup.finetune[0])
    for draws, each in ((1, 1), (waveforms, 1), (waveforms + 1, 2), (100 * waveforms, len(qat.SPEEDS))):
        assert len(dataclasses.replace(setup, draws=draws).crops.features) == each * waveforms


def test_all_trials_complete_and_have_what_is_known_of_them(setup, undisturbed):
    assert [row["trial"] for row in undisturbed.trials] == [0, 1, 2]
    assert len({row["learning_rate"] for row in undisturbed.trials}) == 3
    structures = setup.source.structures
    for row in undisturbed.trials:
        for key in ("eer", "top1"):
            assert row[f"{key}_difference_low"] <= row[f"{key}_difference"] <= row[f"{key}_difference_high"]
        left = multiplications(structures.network(structures.of_share(row["share"])), FRAMES)
        assert left <= multiplications(setup.teacher, FRAMES) and row["gmacs"] == pytest.approx(left / 1e9, rel=0.2)


def test_the_frontier_goes_from_everything_down_and_the_first_trial_is_at_its_knee(undisturbed):
    sizes = [row["gmacs"] for row in undisturbed.frontier]
    assert sizes == sorted(sizes, reverse=True) and undisturbed.frontier[0]["share"] == frontier.RATIO
    assert undisturbed.trials[0]["share"] in [row["share"] for row in undisturbed.frontier]
    assert all(row["trial"] == search.UNTRAINED for row in undisturbed.frontier)
    rows = [*undisturbed.frontier, *undisturbed.trials]
    assert undisturbed.chosen == choice.select(rows)
    assert [row["front"] for row in rows] == list(map(int, choice.pareto_optimal(rows)))


def test_without_trials_the_smallest_untrained_student_that_passes_is_the_answer(setup, tmp_path):
    result = search.run(setup, settings(n_trials=0), tmp_path)
    assert result.trials == [] and result.chosen == [row for row in result.frontier if row["noninferior"]][-1]
    assert result.structure == setup.source.structures.of_share(result.chosen["share"])


@pytest.mark.parametrize(("bits", "steps"), [({}, [5, 5]), ({"mfa": 8}, [9, 1])])
def test_with_few_bits_more_of_the_training_is_with_fake_quantisation(setup, monkeypatch, bits, steps):
    taken, finetune = [], qat.finetune

    def noted(student, **settings):
        taken.append(settings["steps"])
        return finetune(student, **settings)

    monkeypatch.setattr(qat, "finetune", noted)
    source = dataclasses.replace(setup.source, weight_bits=setup.source.weight_bits | bits)
    network = copy.deepcopy(setup.source.structures.network(structure.EVERYTHING))
    hyperparameters = qat.Hyperparameters(learning_rate=1e-4, weight_decay=0.0, batch_size=4, speaker_loss_weight=0.0)
    student, _ = trial.train(dataclasses.replace(setup, source=source), network, hyperparameters, 10, "")
    assert taken == steps and all(parameter.requires_grad for parameter in student.parameters())


def test_a_trial_can_be_made_again(setup, undisturbed):
    row = undisturbed.trials[1]
    structures = setup.source.structures
    smaller = structures.network(structures.of_share(row["share"]))
    network, loss = trial.train(setup, smaller, search.hyperparameters(row), 3, "")
    assert loss == row["train_loss"]
    assert trial.validate(network, setup).objective == row["objective"]


def test_the_student_of_the_chosen_trial_is_what_training_it_anew_gives(setup, undisturbed, tmp_path):
    result = search.run(setup, settings(final_steps=3), tmp_path)
    anew, _ = trial.train(
        setup, setup.source.structures.network(result.structure), search.hyperparameters(result.chosen), 3, ""
    )
    trained = dict(anew.named_parameters())
    assert all(torch.equal(value, trained[name]) for name, value in result.student.named_parameters())
    assert undisturbed.student is None  # it is to have more steps
    assert search.run(setup, settings(final_steps=3), tmp_path).student is None  # another process ran its trials


def test_by_time_the_machine_is_measured_once(setup, tmp_path, monkeypatch):
    """A search that goes on has the times that it began with, or its shares would mean something else."""
    first = search.run(setup, settings(objective="time", n_trials=0), tmp_path)
    monkeypatch.delattr(student.Source, "milliseconds")
    again = search.run(setup, settings(objective="time", n_trials=0), tmp_path)
    assert again.frontier == first.frontier and again.structure == first.structure
    if first.chosen:
        assert first.chosen["share"] == min(row["share"] for row in first.frontier if row["noninferior"])


def test_the_objective_is_of_the_validation_speakers_and_the_training_of_the_others(setup, undisturbed):
    """Both are swapped in a fixture where the two splits differ."""
    row = undisturbed.trials[0]
    swapped = dataclasses.replace(setup, finetune=setup.validation, validation=setup.finetune)
    structures = setup.source.structures
    smaller = structures.network(structures.of_share(row["share"]))
    _network, loss = trial.train(swapped, smaller, search.hyperparameters(row), 3, "")
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
    chosen = setup.source.structures.of_share(0.6)
    path = exported(ptq.convert(setup.source.student(chosen)), tmp_path / "student.onnx")
    tensors = onnx.load(path).graph.initializer
    weights = [t for t in tensors if t.data_type in (TensorProto.INT8, TensorProto.INT4) and len(t.dims) > 1]
    assert {t.data_type for t in weights} == {TensorProto.INT8, TensorProto.INT4}
    assert (
        setup.source.cost(setup.source.structures.network(chosen), FRAMES)[1]
        == sum(len(t.raw_data) for t in weights) / 1e6
    )


def test_an_interrupted_search_ends_as_an_undisturbed_one(setup, undisturbed, tmp_path, monkeypatch):
    finetune, calls = qat.finetune, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:  # the first of the second trial
            raise KeyboardInterrupt
        return finetune(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(qat, "finetune", killed)
        with pytest.raises(KeyboardInterrupt):
            search.run(setup, settings(), tmp_path)
        assert len(calls) == 3
        assert search.run(setup, settings(), tmp_path) == undisturbed
        assert len(calls) == 7  # the finished trial was not run again


def test_other_code_or_settings_are_another_study(setup, monkeypatch):
    before = search.fingerprint(setup, settings())
    assert search.fingerprint(setup, settings(n_trials=1)) == before != search.fingerprint(setup, settings(steps=2))
    monkeypatch.setattr(search, "CODE", search.CODE[:-1])
    assert search.fingerprint(setup, settings()) != before


def test_without_structure_every_operation_stays(setup, tmp_path):
    result = search.run(setup, settings(n_trials=1, structure=False), tmp_path)
    (row,) = result.trials
    assert row["share"] == 1 and row["gmacs"] == setup.source.cost(setup.teacher, FRAMES)[0]
    assert len(result.frontier) == 1


def test_the_objective_of_the_teacher_is_lower_than_that_of_noise(setup, undisturbed):
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((24, 24)).astype("float32"))
    assert undisturbed.reference < trial.objective(noise, setup)


def test_a_trial_has_to_pass_at_a_confidence_for_all_of_them_and_margins_are_no_part_of_the_study(
    setup, undisturbed, studies
):
    """Its losses are kept: other margins, or more trials, only judge them anew."""
    trials = study.open_study(search.fingerprint(setup, settings()), None, studies)
    for number, (row, attempt) in enumerate(zip(undisturbed.trials, study.complete(trials, 3))):
        losses = {key: validation.Loss(**loss) for key, loss in attempt.user_attrs["losses"].items()}
        high, top1 = (max(each.high(validation.trial_level(4)), each.confirmed_high()) for each in losses.values())
        assert high > losses["eer"].high()
        top1 = int(top1 < MARGINS.top1)
        assert row["eer_difference_high"] == pytest.approx(losses["eer"].high(), abs=1e-6)
        for eer, passes in ((high + 1e-6, top1), (high - 1e-6, 0)):
            judged = dataclasses.replace(setup, margins=MARGINS.model_copy(update={"eer": eer}))
            assert search.run(judged, settings(), studies).trials[number]["noninferior"] == passes
