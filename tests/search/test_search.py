import copy

import numpy as np
import pytest
import torch

from src.common.params import QatSearch
from src.data.manifest import Row
from src.evaluate import test_set
from src.quantize import qat
from src.search import factorise, search, student
from tests.quantize.conftest import FRAMES, Frames


def wanted(**changes):
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
            "eer_margin": 0.1,
            "storage": None,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def task(network, features, speech):
    rows = [Row(f"u{i}", speaker, "validation", "", "", 1.0, 0, "") for i, speaker in enumerate(speech[1])]
    bits = {"layer0": 8, "blocks": 8, "mfa": 8, "attention": 8, "fc": 8}
    source = student.Source(network, features, factorise.spectra(network, features), "minmax", bits)
    return search.Task(
        source, copy.deepcopy(network), Frames(), speech, speech, test_set.make_test(rows, 1), FRAMES, 100, "cpu", 5
    )


@pytest.fixture(scope="module")
def undisturbed(task, tmp_path_factory):
    return search.run(task, wanted(), tmp_path_factory.mktemp("study"))


def test_all_trials_complete_and_have_what_is_known_of_them(task, undisturbed):
    assert [row["trial"] for row in undisturbed.trials] == [0, 1, 2]
    assert len({row["learning_rate"] for row in undisturbed.trials}) == 3
    whole = factorise.multiplications(task.source.network)
    for row in undisturbed.trials:
        low, value, high = (row[name] for name in ("eer_difference_low", "eer_difference", "eer_difference_high"))
        assert low <= value <= high
        assert row["noninferior"] == (high < 0.1 and row["top1_difference_high"] >= 0)
        left = factorise.multiplications(
            factorise.factorise(task.source.network, task.source.spectra, task.source.ranks(row["kept_macs"]))
        )
        assert left <= whole and row["gmacs"] == pytest.approx(left * FRAMES / 1e9, rel=0.2)


def test_a_trial_can_be_made_again(task, undisturbed):
    row = undisturbed.trials[1]
    ranks = task.source.ranks(row["kept_macs"])
    network, loss = search.train(task, wanted(), ranks, search.hyperparameters(row), 3, "")
    assert loss == row["train_loss"]
    assert search.objective(search._embed(network, task), task) == row["objective"]


def test_an_interrupted_search_ends_as_an_undisturbed_one(task, undisturbed, tmp_path, monkeypatch):
    finetune, calls = qat.finetune, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finetune(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(qat, "finetune", killed)
        with pytest.raises(KeyboardInterrupt):
            search.run(task, wanted(), tmp_path)
        assert len(calls) == 2
        assert search.run(task, wanted(), tmp_path) == undisturbed
        assert len(calls) == 4  # the finished trial was not run again


def test_more_trials_go_on_and_other_inputs_start_anew(task, undisturbed, tmp_path, capsys):
    search.run(task, wanted(n_trials=1), tmp_path)
    assert search.run(task, wanted(), tmp_path) == undisturbed
    capsys.readouterr()
    assert search.run(task, wanted(), tmp_path) == undisturbed
    assert capsys.readouterr().out == "3 of 3 trials were finished before\n"
    search.run(task, wanted(steps=2, n_trials=1), tmp_path)
    assert "trial 1/1" in capsys.readouterr().out


def test_other_code_is_another_study(task, monkeypatch):
    before = search.fingerprint(task, wanted())
    assert search.fingerprint(task, wanted()) == before
    monkeypatch.setattr(search, "CODE", search.CODE[:-1])
    assert search.fingerprint(task, wanted()) != before


def test_without_structure_every_operation_stays(task, tmp_path):
    result = search.run(task, wanted(n_trials=2, structure=False), tmp_path)
    assert {row["kept_macs"] for row in result.trials} == {1.0} and len({row["gmacs"] for row in result.trials}) == 1


def row(trial, objective, gmacs, size, noninferior=1):
    return {"trial": trial, "objective": objective, "gmacs": gmacs, "size_mb": size, "noninferior": noninferior}


def test_front_and_choice():
    rows = [
        row(0, 0.1, 5.0, 9.0),
        row(1, 0.2, 3.0, 6.0),
        row(2, 0.3, 3.5, 7.0),
        row(3, 0.9, 1.0, 2.0, 0),
        row(4, 0.2, 3.0, 6.0),
    ]
    search.mark_pareto(rows)
    assert [each["front"] for each in rows] == [1, 1, 0, 1, 1]
    assert search.select(rows)["trial"] == 1  # the cheapest that is not inferior
    assert search.select([{**each, "noninferior": 0} for each in rows]) is None


def test_the_objective_of_a_perfect_teacher_is_lower_than_of_noise(task):
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((24, 24)).astype("float32"))
    assert search.objective(search._embed(task.teacher, task), task) < search.objective(noise, task)
