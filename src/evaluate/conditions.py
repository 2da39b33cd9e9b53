"""EER by condition: how long the utterances are, how much noise is in them, what codec or room they came through, the
sexes of the two speakers.

A condition is of the test utterance, of the enrolment or of both; the other side stays whole and clean. Every model
hears the same audio, so that differences are paired.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from src.common.params import Breakdown
from src.data.manifest import Row
from src.data.recordings import load_audio
from src.evaluate import bootstrap, extract, metrics, scores
from src.evaluate.transmission import transmit
from src.evaluate.trials import MOST, Trials, all_pairs, subset
from src.runtime.audio import SAMPLE_RATE
from src.runtime.engine import session
from src.runtime.errors import InputError

COLUMNS = ("condition", "level", "model", "eer", "low", "high", "difference", "difference_low", "difference_high")
# Of the test utterance where the name does not say otherwise; `channel` is a codec or a room.
CONDITIONS = ("seconds", "enrolment_seconds", "snr", "channel", "channel_both", "sex")
FULL, CLEAN = "full", "clean"
TALKERS = 6  # voices in a babble
_DIGITS = 6


def choose(rows: Sequence[Row], enrolments: int, utterances: int) -> list[Row]:
    """Each speaker's first `enrolments` rows and at most `utterances` more.

    Only of speakers that the encoder was not trained on, where two or more of these have rows enough.
    """
    counts = Counter(row.speaker for row in rows if not row.seen)
    if sum(count > enrolments for count in counts.values()) >= 2:
        rows = [row for row in rows if not row.seen]
    taken, chosen = Counter(), []
    for row in rows:
        taken[row.speaker] += 1
        if taken[row.speaker] <= enrolments + utterances:
            chosen.append(row)
    return chosen


def breakdown(
    models: dict[str, Path],
    rows: Sequence[Row],
    pool: Sequence[np.ndarray],
    section: Breakdown,
    enrolments: int,
    resamples: int,
    seed: int,
) -> list[tuple[str, ...]]:
    """Rows of COLUMNS: EER of all pairs of `rows` in each condition, and its difference to the first model.

    models: {name: ONNX file}; rows: of the manifest, as `choose` gives them; pool: waveforms of other
    speakers, for babble; section: `breakdown` of the parameters. Fractions, intervals at 95 %. A
    cut leaves a shorter utterance as it is. Raises InputError as `embed` and `all_pairs`.
    """
    trials = all_pairs(rows, enrolments, MOST, seed)
    sessions = {name: session(path) for name, path in models.items()}

    def embedded(rows, audio):
        return dict(zip(sessions, extract.embed_by(list(sessions.values()), rows, audio=audio), strict=True))

    whole = embedded(rows, load_audio)
    scored: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for level, sides, audio in _changes(rows, trials, pool, section, seed):
        changed = np.unique(np.concatenate(list(sides.values())))
        altered = embedded([rows[row] for row in changed], audio) if audio else None
        for condition, side in sides.items():
            scored[condition, level] = {}
            for name, embeddings in whole.items():
                heard = embeddings.copy()
                if altered:
                    heard[side] = altered[name][np.searchsorted(changed, side)]
                scored[condition, level][name] = scores.cosine(heard, trials)
    parts = dict.fromkeys(scored, subset(trials, np.ones(len(trials), dtype=bool)))
    for level, mask in by_sex(trials, {row.speaker: row.sex for row in rows}).items():
        scored["sex", level], parts["sex", level] = scored["seconds", FULL], subset(trials, mask)
    order = sorted(scored, key=lambda key: CONDITIONS.index(key[0]))
    return [row for key in order for row in _lines(key, scored[key], parts[key], resamples, seed)]


def _changes(rows, trials, pool, section, seed):
    """(level, {condition: the rows that it changes}, what gives a row's waveform in it; None: as it is)."""
    tested, enrolled = trials.test_rows, np.concatenate(trials.enrol_rows)
    cuts, noisy = {"seconds": tested, "enrolment_seconds": enrolled}, {"snr": tested}
    channels = {"channel": tested, "channel_both": np.concatenate([tested, enrolled])}
    number = {rows[row].utt_id: index for index, row in enumerate(tested)}

    def cut(seconds, row):
        return load_audio(row)[: round(seconds * SAMPLE_RATE)]

    def add_babble(snr, row):
        clean = load_audio(row)
        return mix(clean, babble(pool, len(clean), np.random.default_rng([seed, number[row.utt_id]])), snr)

    def send(channel, row):
        return transmit(channel, load_audio(row), np.random.default_rng([seed, zlib.crc32(row.utt_id.encode())]))

    yield from ((f"{seconds:g}", cuts, partial(cut, seconds)) for seconds in section.seconds)
    yield from ((FULL, cuts, None), (CLEAN, noisy, None))
    yield from ((f"{snr:g}", noisy, partial(add_babble, snr)) for snr in section.snr)
    if section.channels:
        yield CLEAN, channels, None
    yield from ((channel, channels, partial(send, channel)) for channel in section.channels)


def babble(pool: Sequence[np.ndarray], samples: int, rng: np.random.Generator) -> np.ndarray:
    """TALKERS of the waveforms in `pool`, at the same power, at once: float64 [samples].

    Each starts at a random place and is repeated where it is too short. Raises InputError without waveforms.
    """
    if not pool:
        raise InputError("data/manifest.csv: the split validation is empty; babble is made of its utterances")
    total = np.zeros(samples)
    for index in rng.choice(len(pool), TALKERS, replace=len(pool) < TALKERS):
        voice = np.asarray(pool[index], dtype=np.float64)
        start = rng.integers(len(voice))
        total += np.resize(np.roll(voice, -start), samples) / np.sqrt(np.mean(voice**2))
    return total


def mix(clean: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """`clean` [n] with noise [n] at a ratio of `snr` dB of their mean powers: float32, scaled to full scale
    where it would exceed it."""
    power = np.mean(np.square(clean, dtype=np.float64))
    mixed = clean + noise * np.sqrt(power / np.mean(noise**2) / 10 ** (snr / 10))
    return (mixed / max(1, np.abs(mixed).max())).astype(np.float32)


def by_sex(trials: Trials, sexes: dict[str, str]) -> dict[str, np.ndarray]:
    """{"same", "different": bool [trials]}: all target trials, and the non-target trials between speakers of
    the same sex, or of different ones.

    sexes: {speaker: sex, or "" where it is not known, which leaves out its trials}. A level without
    non-target or without target trials is left out.
    """
    sex = np.array([sexes.get(speaker, "") for speaker in trials.speakers])
    first, second = sex[trials.enrol_speakers[trials.enrol]], sex[trials.test_speakers[trials.test]]
    known, same, targets = (first != "") & (second != ""), first == second, trials.targets
    masks = {"same": known & same, "different": known & (targets | ~same)}
    return {level: mask for level, mask in masks.items() if targets[mask].any() and not targets[mask].all()}


def _lines(key, scored, part, resamples, seed):
    """The models' rows of one condition and level, from {model: scores}, over a Subset of the trials."""
    counts = bootstrap.resamples(part.speakers, resamples, seed)
    lines, reference = [], None
    for name, all_scores in scored.items():
        chosen = all_scores[part.chosen]
        estimate = metrics.eer(chosen, part.targets)
        values = bootstrap.detection(chosen, part.targets, part.enrol, part.test, counts, priors=())["eer"]
        numbers = [estimate, *bootstrap.interval(estimate, values, counts)]
        if reference:
            change = estimate - reference[0]
            numbers += [change, *bootstrap.difference_interval(change, values - reference[1], counts)]
        reference = reference or (estimate, values)
        texts = [f"{round(float(number), _DIGITS):.{_DIGITS}f}" for number in numbers]
        lines.append((*key, name, *texts, *[""] * (len(COLUMNS) - len(key) - 1 - len(texts))))
    return lines
