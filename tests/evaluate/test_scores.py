import csv
from dataclasses import replace

import numpy as np
import pytest

from src.evaluate import normalise, result, scores, test_set
from src.evaluate.trials import all_pairs
from src.runtime.calibration import Calibration
from src.runtime.errors import InputError
from tests.evaluate.simulation import embeddings, rows

TRIALS = all_pairs(rows(4, 3), 2)
EMBEDDINGS = embeddings(np.random.default_rng(0), 4, 3, 0.5)[0]
RANKS = {"all": [("a", "x", 1), ("b", "y", 3)], "seen": [("a", "x", 1)]}


def test_cosine_of_averaged_enrolments():
    found = scores.cosine(EMBEDDINGS, TRIALS).reshape(4, 4)
    unit = [embedding / np.linalg.norm(embedding) for embedding in EMBEDDINGS]
    for speaker in range(4):
        mean = unit[3 * speaker] + unit[3 * speaker + 1]
        for other in range(4):
            expected = mean @ unit[3 * other + 2] / np.linalg.norm(mean)
            assert found[speaker, other] == pytest.approx(expected, abs=1e-8)


def test_cosine_in_parts_is_the_same(monkeypatch):
    whole = scores.cosine(EMBEDDINGS, TRIALS)
    monkeypatch.setattr(scores, "_CHUNK", 3)
    np.testing.assert_array_equal(whole, scores.cosine(EMBEDDINGS, TRIALS))


def test_scores_are_read_as_they_were(tmp_path):
    path = tmp_path / "folder" / "a.csv"
    values = np.append(scores.cosine(EMBEDDINGS, TRIALS)[:-3], [1.0, -1.0, 0.0])
    scores.write_scores(path, TRIALS, values)
    np.testing.assert_array_equal(scores.read_scores(path, TRIALS), values)
    lines = path.read_text().splitlines()
    assert lines[0] == "enrol,test,target,score"
    assert lines[1] == f"s000,s000/u2.wav,1,{values[0]:.8f}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("enrol", "enroll", 1), "line 1: the columns must be enrol,test,target,score"),
        (lambda text: "", "line 1"),
        (lambda text: text + "a,b\n", "line 18: 2 values, 4 are needed"),
        (lambda text: text.replace("s001,", "s009,", 1), "not those of the present test split"),
        (lambda text: text[: text.rindex("s003,")], "not those of the present test split"),
        (lambda text: text.replace(",0.", ",O.", 1), "score"),
    ],
)
def test_damaged_scores(tmp_path, change, message):
    path = tmp_path / "a.csv"
    scores.write_scores(path, TRIALS, np.full(len(TRIALS), 0.5))
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        scores.read_scores(path, TRIALS)


def test_names_with_commas_quotes_and_line_breaks_come_back(tmp_path):
    names = {"s000": 'a,b "c"', "s001": "d\ne", "s002": "é", "s003": " "}
    trials = all_pairs([replace(row, speaker=names[row.speaker], utt_id=f"{row.utt_id},") for row in rows(4, 3)], 2)
    values = np.linspace(-1, 1, len(trials)).round(scores.DECIMALS)
    scores.write_scores(tmp_path / "a.csv", trials, values)
    np.testing.assert_array_equal(scores.read_scores(tmp_path / "a.csv", trials), values)
    with open(tmp_path / "a.csv", newline="") as file:
        lines = list(csv.reader(file))[1:]
    assert lines[0] == ['a,b "c"', "s000/u2.wav,", "1", "-1.00000000"]
    assert [line[0] for line in lines[::4]] == list(names.values())


def test_missing_scores(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        scores.read_scores(tmp_path / "a.csv", TRIALS)


def test_ranks_are_read_as_they_were(tmp_path):
    path = tmp_path / "a.csv"
    scores.write_ranks(path, RANKS)
    probes = {group: [line[:2] for line in lines] for group, lines in RANKS.items()}
    assert scores.read_ranks(path, probes) == RANKS
    for other in ({"all": RANKS["all"]}, {**RANKS, "seen": []}, {**RANKS, "all": RANKS["all"][::-1]}):
        with pytest.raises(InputError, match="not those of the present test split"):
            scores.read_ranks(path, other)
    path.write_text("group,test,speaker,rank\nall,a,x,0\n")
    with pytest.raises(InputError, match="rank '0'"):
        scores.read_ranks(path, {"all": [("a", "x")]})


@pytest.mark.parametrize("top", [None, 2])
def test_ranks_in_blocks_are_those_of_the_whole_grid(monkeypatch, top):
    some = rows(6, 5, seen=3)
    model = embeddings(np.random.default_rng(1), 6, 5, 1.5)[0]
    cohort = None if top is None else normalise.speaker_models(EMBEDDINGS, [f"c{row // 3}" for row in range(12)])
    test, fitted = test_set.make_test(some, 1), Calibration(1.0, 0.0, 0.0)
    whole = result.score_test(model, test, fitted, cohort, top)
    grid = whole.scores.reshape(6, 24)
    right = np.repeat(np.arange(6), 4)
    assert [rank for *_, rank in whole.ranks["all"]] == (grid >= grid[right, range(24)]).sum(axis=0).tolist()
    assert len(whole.ranks["unseen"]) == 12 and max(rank for *_, rank in whole.ranks["unseen"]) > 1
    monkeypatch.setattr(normalise, "_CELLS", 40)  # six test utterances at a time
    blocks = result.score_test(model, test, fitted, cohort, top)
    assert blocks.ranks == whole.ranks and np.array_equal(blocks.scores, whole.scores)
