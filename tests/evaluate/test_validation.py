import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from src.common import layout
from src.common.params import Margins
from src.evaluate import metrics, test_set, validation
from src.evaluate.validation import Loss, Speech
from src.runtime.errors import InputError
from tests.evaluate import simulation

MARGINS = Margins(eer=0.01, top1=0.02)
PASSING = {"eer": Loss(0.0, 0.002, 20.0, 21, 84), "top1": Loss(0.0, 0.004, 20.0, 21, 84)}


def speech(speakers, utterances, gallery, enrolments=1):
    return Speech(simulation.rows(speakers, utterances), enrolments, gallery)


def models(seed, speakers, utterances, noise=0.6, damage=0.4):
    return simulation.embeddings(np.random.default_rng(seed), speakers, utterances, noise, damage=damage)


def unit(embeddings, speakers):
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).reshape(speakers, -1, embeddings.shape[1])


@pytest.mark.parametrize("gallery", [2, 3, 4])
def test_top1_is_over_every_enrolment_every_probe_and_every_gallery_with_noise_as_wide_as_the_kernel(gallery):
    size, utterances = 5, 3
    embeddings = models(0, size, utterances, noise=1.0)[0]
    vectors, leads, least = unit(embeddings, size), [], []
    for speaker, enrolled, probe in itertools.product(range(size), range(utterances), range(utterances)):
        if enrolled == probe:
            continue
        cosines = vectors[:, enrolled] @ vectors[speaker, probe]
        lead = {other: cosines[speaker] - cosines[other] for other in set(range(size)) - {speaker}}
        least.append(min(lead.values()))
        leads += [min(lead[other] for other in others) for others in itertools.combinations(lead, gallery - 1)]
    width = np.std(least) * (4 / (size * utterances)) ** (1 / 3)  # Azzalini 1981
    figures = validation.measure(embeddings, speech(size, utterances, gallery))
    assert 0.2 < np.mean(np.array(leads) > 0) < 0.95
    assert figures.top1.mean() == pytest.approx(stats.norm.cdf(np.array(leads) / width).mean())


def test_eer_is_that_of_all_pairs_of_utterances_with_noise_as_wide_as_the_kernel():
    rng, embeddings = np.random.default_rng(9), models(1, 12, 4)[0]
    cosines, targets = simulation.all_scores(embeddings, 12)
    spread = np.where(targets, cosines[targets].std(), cosines[~targets].std())
    # Normal reference for 48 utterances (Azzalini 1981).
    noisy = np.tile(cosines, 1000) + np.tile(1.587 * spread / 48 ** (1 / 3), 1000) * rng.normal(
        size=1000 * len(cosines)
    )
    rate = metrics.eer(noisy, np.tile(targets, 1000))
    assert rate > metrics.eer(cosines, targets) > 0.02
    assert validation.measure(embeddings, speech(12, 4, 6)).eer.mean() == pytest.approx(rate, rel=0.03)


def test_smoothed_figures_tell_models_apart_on_fewer_speakers(monkeypatch):
    pairs = [models(seed, 20, 6, noise=0.45, damage=0.25) for seed in range(40)]
    judged = speech(20, 6, 9)

    def differences(figure):
        return np.array([np.subtract(*map(figure, pair)) for pair in pairs])

    def means(embeddings):
        figures = validation.measure(embeddings, judged)
        return figures.eer.mean(), figures.top1.mean()

    smoothed = differences(means)
    eer = differences(lambda each: metrics.eer(*simulation.all_scores(each, 20)))
    monkeypatch.setattr(validation, "_kernel", lambda values, utterances: 1e-9)
    top1 = differences(lambda each: validation.measure(each, judged).top1.mean())
    for counted, smooth, share in ((eer, smoothed[:, 0], 0.85), (top1, smoothed[:, 1], 0.9)):
        assert np.std(smooth) < share * np.std(counted)
        assert np.mean(smooth) == pytest.approx(np.mean(counted), abs=3 * np.std(counted) / np.sqrt(40))


def test_scores_that_are_all_alike_or_far_apart_have_an_eer():
    alike = validation.measure(np.ones((12, 3)), speech(4, 3, 2)).eer
    assert alike.mean() == pytest.approx(0.5)
    apart = validation.measure(np.repeat(np.eye(4), 3, axis=0), speech(4, 3, 2)).eer
    np.testing.assert_allclose(apart, 0, atol=1e-6)


def test_pseudo_values_of_top1_are_what_it_loses_without_each_speaker(monkeypatch):
    """With a kernel of one width, which without a speaker would be a little other."""
    monkeypatch.setattr(validation, "_kernel", lambda values, utterances: 0.1)
    size, utterances, gallery = 7, 3, 4
    embeddings = models(2, size, utterances, noise=1.0)[0]
    whole, without = validation.measure(embeddings, speech(size, utterances, gallery)), []
    for speaker in range(size):
        rest = np.arange(len(embeddings)) // utterances != speaker
        rows = [row for row, there in zip(simulation.rows(size, utterances), rest) if there]
        without.append(validation.measure(embeddings[rest], Speech(rows, 1, gallery)).top1.mean())
    np.testing.assert_allclose(whole.top1 - whole.top1.mean(), (size - 1) * (np.mean(without) - np.array(without)))


def test_pseudo_values_of_the_eer_are_what_it_loses_without_each_speaker():
    size, utterances = 40, 5
    embeddings = models(3, size, utterances)[0]
    whole, without = validation.measure(embeddings, speech(size, utterances, 2)).eer, []
    for speaker in range(size):
        rest = np.arange(len(embeddings)) // utterances != speaker
        rows = [row for row, there in zip(simulation.rows(size, utterances), rest) if there]
        without.append(validation.measure(embeddings[rest], Speech(rows, 1, 2)).eer.mean())
    exact = size * whole.mean() - (size - 1) * np.array(without)
    assert np.corrcoef(exact, whole)[0, 1] > 0.995
    assert whole.std() == pytest.approx(exact.std(), rel=0.1)


def test_speakers_with_too_few_utterances_are_left_out_and_the_order_of_rows_is_free():
    rows = simulation.rows(6, 4)
    embeddings = models(4, 6, 4)[0]
    expected = validation.measure(embeddings, Speech(rows, 2, 3))
    alone = replace(rows[0], speaker="alone", utt_id="alone")
    shuffled = np.random.default_rng(0).permutation(24)
    # The order within a speaker decides which utterances are averaged, so that it stays.
    order = np.argsort(shuffled // 4, kind="stable")
    order = np.concatenate([np.arange(start, 24, 4) for start in range(4)])
    figures = validation.measure(
        np.vstack([embeddings[order], embeddings[:2]]),
        Speech([*(rows[index] for index in order), alone, replace(alone, utt_id="again")], 2, 3),
    )
    assert figures.speakers == expected.speakers and list(figures.utterances) == [4] * 6
    np.testing.assert_allclose(figures.eer, expected.eer)
    np.testing.assert_allclose(figures.top1, expected.top1)


def test_a_test_is_confirmed_by_its_unseen_speakers_and_not_where_they_are_too_many(monkeypatch):
    test = test_set.make_test(simulation.rows(9, 3, seen=4), 1)
    heard = validation.confirming(test, 1)
    assert len(heard.by_speaker()) == 5 and not any(row.seen for row in heard.rows)
    assert heard.rows == [row for row in test.rows if not row.seen] and heard.gallery == 4
    monkeypatch.setattr(validation, "_MOST_TRIALS", 5 * 15 - 1)
    assert validation.confirming(test, 1) is None


def test_the_gallery_is_that_of_the_test_or_all_speakers_but_one():
    rows = simulation.rows(8, 3)
    assert validation.speech(rows, 1, test_set.make_test(simulation.rows(5, 3), 1)).gallery == 5
    assert validation.speech(rows, 1, test_set.make_test(simulation.rows(20, 3), 1)).gallery == 7
    unseen = test_set.make_test(simulation.rows(7, 3, seen=4), 1)
    assert validation.speech(rows, 1, unseen).gallery == 3


def test_losses_are_paired_over_speakers():
    first, second = (validation.measure(model, speech(30, 4, 10)) for model in models(5, 30, 4))
    losses = validation.losses(second, first)
    for key, differences in (("eer", second.eer - first.eer), ("top1", first.top1 - second.top1)):
        exact = stats.ttest_1samp(differences, 0)
        assert losses[key].value == pytest.approx(differences.mean())
        assert losses[key].value / losses[key].error == pytest.approx(exact.statistic)
        assert 1 <= losses[key].freedom <= 29 and (losses[key].speakers, losses[key].utterances) == (30, 120)
    even = validation.losses(replace(first, eer=first.eer + np.resize([-0.1, 0.1], 30)), first)["eer"]
    assert even.freedom == pytest.approx(29)
    one = validation.losses(replace(first, eer=first.eer + (np.arange(30) == 3)), first)["eer"]
    assert one.freedom < 3


def test_bounds():
    loss = Loss(0.01, 0.002, 9.0, 10, 40)
    assert loss.high() == pytest.approx(0.01 + 0.002 * stats.t(9).ppf(0.975))
    assert loss.low(0.9) == pytest.approx(0.01 - 0.002 * stats.t(9).ppf(0.9))
    # Of 40 utterances none lost: with 2.5 % at least, where one in `share` is lost.
    share = Loss(0.0, 0.0, 9.0, 10, 40).high()
    assert (1 - share) ** 40 == pytest.approx(0.025) and 0.08 < share < 0.1
    same = validation.measure(models(6, 10, 4)[0], speech(10, 4, 5))
    assert validation.losses(same, same)["top1"].high() == pytest.approx(share)


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({}, "passes"),
        ({"eer": Loss(0.007, 0.002, 20.0, 21, 84)}, "inferior"),  # is shown to lose
        ({"eer": Loss(0.003, 0.004, 20.0, 21, 84)}, "undecided"),  # neither
        ({"top1": Loss(0.003, 0.009, 20.0, 21, 84)}, "undecided"),  # the other margin counts too
        ({"eer": Loss(0.002, 0.0005, 20.0, 21, 84)}, "passes"),  # is shown to lose, and less than the margin
        ({"eer": Loss(-0.02, 0.002, 20.0, 21, 84)}, "passes"),  # is better
        ({"top1": Loss(0.03, 0.002, 20.0, 21, 84), "eer": Loss(0.003, 0.004, 20.0, 21, 84)}, "inferior"),
    ],
)
def test_verdict(changes, verdict):
    assert validation.verdict(PASSING | changes, MARGINS) == verdict


def test_more_trials_need_more_certainty():
    near = PASSING | {"eer": Loss(0.004, 0.002, 20.0, 21, 84)}
    assert validation.verdict(near, MARGINS, validation.trial_level(1)) == "passes"
    assert validation.verdict(near, MARGINS, validation.trial_level(10)) == "undecided"
    assert 10 * (1 - validation.trial_level(10)) == pytest.approx(1 - validation.LEVEL)


def test_a_test_confirms_in_95_percent_what_a_search_takes():
    rng, speakers = np.random.default_rng(0), 24
    drawn = rng.normal(0.001, 0.005, (2, 4000, speakers))
    judged, tested = (
        [Loss(each.mean(), each.std(ddof=1) / np.sqrt(speakers), speakers - 1.0, speakers, 96) for each in split]
        for split in drawn
    )
    confirmed = [test.high() < loss.confirmed_high() for loss, test in zip(judged, tested)]
    assert np.mean(confirmed) == pytest.approx(validation.ASSURANCE, abs=0.02)
    margin = MARGINS.model_copy(update={"eer": judged[0].confirmed_high() + 1e-9})
    assert validation.assured(PASSING | {"eer": judged[0]}, margin, validation.LEVEL)
    margin = MARGINS.model_copy(update={"eer": judged[0].confirmed_high() - 1e-9})
    assert not validation.assured(PASSING | {"eer": judged[0]}, margin, validation.LEVEL)
    assert validation.verdict(PASSING | {"eer": judged[0]}, margin) == "passes"
    same = Loss(0.0, 0.0, 23.0, 24, 96)
    assert same.confirmed_high() == same.high(validation.LEVEL)


def test_on_as_many_speakers_as_are_needed_a_model_that_loses_nothing_passes_in_80_percent():
    rng, deviation = np.random.default_rng(0), 0.03
    needed = Loss(0.004, deviation / np.sqrt(20), 19.0, 20, 80).speakers_for(0.01)
    assert 60 < needed < 110
    differences = rng.normal(0, deviation, (2000, needed))
    bounds = differences.mean(1) + stats.t(needed - 1).ppf(validation.LEVEL) * differences.std(1, ddof=1) / np.sqrt(
        needed
    )
    assert np.mean(bounds < 0.01) == pytest.approx(0.8, abs=0.03)
    losses = PASSING | {"top1": Loss(0.0, 0.05, 20.0, 21, 84)}
    assert validation.speakers_needed(losses, MARGINS) == losses["top1"].speakers_for(0.02) > 900
    none_lost = Loss(0.0, 0.0, 19.0, 20, 80).speakers_for(0.01)
    assert Loss(0.0, 0.0, 19.0, none_lost, 4 * none_lost).high(validation.LEVEL) < 0.01
    assert Loss(0.0, 0.0, 19.0, none_lost - 1, 4 * (none_lost - 1)).high(validation.LEVEL) > 0.01


def test_figures_are_kept_and_those_of_other_speech_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures = validation.measure(models(7, 6, 3)[0], speech(6, 3, 4))
    validation.write("ptq", "validation", figures)
    again = validation.read("ptq", "validation", speech(6, 3, 4))
    assert again.speakers == figures.speakers
    np.testing.assert_allclose(again.eer, figures.eer, atol=1e-9)
    np.testing.assert_allclose(again.top1, figures.top1, atol=1e-9)
    with pytest.raises(InputError, match="run the stage ptq again"):
        validation.read("ptq", "validation", speech(6, 4, 4))
    layout.judged("ptq", "validation").unlink()
    with pytest.raises(InputError, match="no such file; run the stage ptq"):
        validation.read("ptq", "validation", speech(6, 3, 4))


def test_summary_gives_differences_with_the_sign_of_their_metric():
    first, second = (validation.measure(model, speech(20, 4, 8)) for model in models(8, 20, 4))
    losses = validation.losses(second, first)
    found = validation.summary(speech(20, 4, 8), second, losses, MARGINS)
    assert (found["speakers"], found["utterances"], found["gallery"], found["seen_speakers"]) == (20, 80, 8, 0)
    for key, sign in (("eer", 1), ("top1_accuracy", -1)):
        ends = found["difference"][key]
        assert ends["low"] < ends["value"] < ends["high"]
        name = "eer" if key == "eer" else "top1"
        assert ends["value"] == pytest.approx(sign * losses[name].value, abs=1e-6)
        assert found[key] == pytest.approx(getattr(second, name).mean(), abs=1e-6)
    assert found["verdict"] == validation.verdict(losses, MARGINS)
    assert "difference" not in validation.summary(speech(20, 4, 8), first)
