import pytest
import torch

from src.params import QatSearch
from src.quantize import qat, search
from tests.quantize.conftest import Frames


def wanted(**changes):
    return QatSearch(**{
        "n_trials": 3, "steps": 3, "crop_seconds": 0.3, "batch_size": [4, 6],
        "learning_rate": {"low": 1e-4, "high": 1e-2}, "weight_decay": {"low": 1e-6, "high": 1e-3},
        "speaker_loss_weight": {"low": 0.0, "high": 0.3}, **changes,
    })


@pytest.fixture(scope="module")
def task(network, calibrated, speech):
    return search.Task(*calibrated, network, Frames(), speech, speech, "cpu", 5)


@pytest.fixture(scope="module")
def undisturbed(task, tmp_path_factory):
    return search.run(task, wanted(), tmp_path_factory.mktemp("study"))


def same(first, second):
    assert first.trials == second.trials and first.best == second.best
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_all_trials_complete_and_the_best_is_chosen(task, undisturbed):
    assert [row["trial"] for row in undisturbed.trials] == [0, 1, 2]
    assert undisturbed.best["objective"] == min(row["objective"] for row in undisturbed.trials)
    assert len({row["learning_rate"] for row in undisturbed.trials}) == 3
    best = search.student(task, undisturbed.state)
    assert search.objective(best, task) == pytest.approx(undisturbed.best["objective"], rel=1e-6)
    assert undisturbed.before == pytest.approx(search.objective(search.student(task), task))


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
        same(search.run(task, wanted(), tmp_path), undisturbed)
        assert len(calls) == 4  # the finished trial was not run again


def test_more_trials_go_on_and_other_inputs_start_anew(task, undisturbed, tmp_path, capsys):
    search.run(task, wanted(n_trials=1), tmp_path)
    same(search.run(task, wanted(), tmp_path), undisturbed)
    capsys.readouterr()
    search.run(task, wanted(steps=2, n_trials=1), tmp_path)
    assert "trial 1/1" in capsys.readouterr().out
    search.clear(tmp_path)
    assert not tmp_path.exists()
