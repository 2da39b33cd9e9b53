import numpy as np
import pytest

from src.data.manifest import Row
from src.evaluate import accuracy, bootstrap, metrics, sessions, test_set
from src.evaluate.result import score_test
from src.runtime.calibration import Calibration
from tests.evaluate import simulation

FITTED = Calibration(scale=10.0, offset=-5.0, threshold_eer=0.5)


def row(utt_id, speaker):
    return Row(utt_id, speaker, "test", "data/audio/0.flac", 3.0, 0)


def named(speakers=10, videos=3, utterances=2):
    names = [f"s{s:02}/v{v}/{u}.wav" for s in range(speakers) for v in range(videos) for u in range(utterances)]
    return [row(name, name[:3]) for name in names]


@pytest.mark.parametrize(
    ("names", "speaker", "expected"),
    [
        (["id1/video/1.wav", "id1/other/1.wav"], "id1", ("id1/video", "id1/other")),
        (["dev/id1/a/1.wav", "dev/id1/b/1.wav"], "id1", ("id1/a", "id1/b")),
        (["dev/id1/a/1.wav", "dev/id1/b/1.wav"], "dev/id1", ("dev/id1/a", "dev/id1/b")),
        (["id1/a/x/1.wav", "id1/a/y/1.wav"], "id1", ("id1/a/x", "id1/a/y")),
        (["id1/1.wav", "id1/2.wav"], "id1", None),  # no folder below the speaker's
        (["id1/a/1.wav", "id1/2.wav"], "id1", None),  # not of every utterance
        (["id1/a/1.wav", "id1/a/2.wav"], "id1", None),  # one session: nothing to draw
        (["a/1.wav", "b/2.wav"], "id1", None),  # the speaker is no folder
    ],
)
def test_a_session_is_the_folder_below_the_speakers(names, speaker, expected):
    assert sessions.of([row(name, speaker) for name in names]) == expected


def test_as_many_sessions_are_drawn_as_a_speaker_has_each_time():
    speakers, whole = np.array([0, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 0, 0, 1], dtype=bool)
    counts = bootstrap.resamples(3, 200, 0)
    drawn = bootstrap.within_speakers(counts, speakers, whole, 0).drawn
    assert (drawn[:, [0, 4, 5]] == counts[:, [0, 2, 2]]).all()  # the only one of its speaker; one that is not drawn
    assert (drawn[:, 1:4].sum(axis=1) == 3 * counts[:, 1]).all() and (drawn[:, 1] != counts[:, 1]).any()


def test_a_trial_counts_as_often_as_its_sessions_were_drawn():
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(5), 3)
    enrol, test = rng.integers(15, size=(2, 400))
    targets = speakers[enrol] == speakers[test]
    scores = (rng.normal(size=400) + 2 * targets).round(1)
    counts = bootstrap.resamples(5, 30, 0)
    drawn = bootstrap.within_speakers(counts, speakers, np.zeros(15, dtype=bool), 1)
    values = bootstrap.detection(scores, targets, enrol, test, counts, sessions=drawn)
    for index, (count, times) in enumerate(zip(counts, drawn.drawn, strict=True)):
        weights = np.where(enrol == test, times[enrol], times[enrol] * times[test]).astype(float)
        between = targets & (enrol != test)
        weights[between] /= np.maximum(count[speakers[enrol[between]]], 1)
        miss = np.average(scores[targets] < 1, weights=weights[targets])
        ranking = metrics.rank(scores, targets)
        held = weights[ranking.order]
        rates = metrics.from_counts(
            *(np.add.reduceat(held * kind, ranking.starts) for kind in (ranking.targets, ~ranking.targets))
        )
        assert 0 <= miss <= 1 and values["eer"][index] == pytest.approx(rates["eer"], abs=1e-12)
        assert values["min_cllr"][index] == pytest.approx(rates["min_cllr"], abs=1e-12)
        accepted = scores >= np.log(99)
        cost = np.average(~accepted[targets], weights=weights[targets])
        cost += 99 * np.average(accepted[~targets], weights=weights[~targets])
        assert values["act_dcf_0.01"][index] == pytest.approx(cost, abs=1e-12)


@pytest.mark.parametrize("enrolments", [1, 3])
def test_sessions_are_resampled_where_the_data_name_them(enrolments):
    rows = named()
    models = simulation.embeddings(np.random.default_rng(0), 10, 6, 0.6)
    flat = [row(name.utt_id.replace("/v", "/").replace("/", "-").replace("-", "/", 1), name.speaker) for name in rows]
    figures = []
    for listed in (rows, flat):
        test = test_set.make_test(listed, enrolments)
        first, second = (score_test(model, test, FITTED) for model in models)
        figures.append(accuracy.figures(test, second, 200, 0, first))
    with_sessions, without = figures
    assert with_sessions.pop("sessions") == 30 - (enrolments > 1) * 10 and "sessions" not in without
    for key in accuracy.KEYS:
        assert with_sessions[key] == without[key] and with_sessions[f"{key}_ci"] != without[f"{key}_ci"]
