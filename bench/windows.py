"""A recording longer than the limit: cut to it, in windows whose embeddings are averaged, or whole; by EER.

    python -m bench.windows SPEECH [--model models/fp32.onnx] [--limits 5 10]

SPEECH: <speaker>/<session>/<utterance>, two sessions of a speaker at least. The utterances of a session, joined, are the
long recording; those of the speaker's other session test it, one at a time, and the sessions joined test each other.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.windows")

import itertools
from pathlib import Path

import numpy as np
from pydantic import Field
from tqdm import tqdm

from src.common.schema import Section
from src.evaluate import bootstrap, metrics
from src.runtime import engine
from src.runtime.audio import SAMPLE_RATE, waveform
from src.runtime.scoring import mean_direction, normalised
from src.sources.folder import audio_files

RESAMPLES = 1000


class Options(Section):
    speech: Path = Field(description="the folder of speakers")
    model: Path = Field(Path("models/fp32.onnx"), description="an ONNX file")
    limits: list[float] = Field([5.0, 10.0], description="seconds")


def main(speech, model, limits):
    session = engine.session(model)
    sessions = _sessions(speech)
    long = {key: np.concatenate(parts) for key, parts in sessions.items()}
    seconds = np.array([len(samples) for samples in long.values()]) / SAMPLE_RATE
    print(
        f"{model}: {len(long)} recordings of {seconds.min():.1f} to {seconds.max():.1f} s, median {np.median(seconds):.1f}"
    )
    short = {
        key: normalised(np.stack([engine.embedding(session, part) for part in parts]).astype(np.float64))
        for key, parts in tqdm(sessions.items(), "utterances", disable=None)
    }
    whole = {key: normalised(engine.embedding(session, samples).astype(np.float64)) for key, samples in long.items()}
    for limit in limits:
        cut, averaged, plain = {}, {}, {}
        for key, samples in tqdm(long.items(), f"{limit:g} s", disable=None):
            size = round(limit * SAMPLE_RATE)
            cut[key] = normalised(engine.embedding(session, samples[:size]).astype(np.float64))
            parts = np.array_split(samples, -(-len(samples) // size))
            values = np.stack([engine.embedding(session, part) for part in parts])
            averaged[key] = mean_direction(values)
            plain[key] = normalised(values.astype(np.float64).mean(axis=0))
        forms = {"cut": cut, "windows": averaged, "windows, by length": plain, "whole": whole}
        for title, tests in (("one utterance", short), ("as long", None)):
            _compare(f"{limit:g} s, tested by {title}", forms, tests)


def _sessions(speech) -> dict[tuple[str, str], list[np.ndarray]]:
    """{(speaker, session): the utterances}"""
    found = {}
    for path, _ in audio_files(speech):
        parts = Path(path).relative_to(speech).parts
        if len(parts) == 3:
            found.setdefault(parts[:2], []).append(waveform(path)[0])
    return found


def _compare(title, forms, tests):
    """Prints the EER of each form, and its difference to the first with the paired interval."""
    base, counts = None, None
    for name, enrolled in forms.items():
        scores, one, other = _trials(
            enrolled, tests or {key: values[None] for key, values in enrolled.items()}, bool(tests)
        )
        if counts is None:
            counts = bootstrap.resamples(one.max() + 1, RESAMPLES, seed=0)
        eer = metrics.eer(scores, one == other)
        values = bootstrap.detection(scores, one == other, one, other, counts)["eer"]
        line = f"{title}: {name:<18} EER {eer:.2%}"
        if base is None:
            base = eer, values
            line += f"  ({len(scores):,} trials, {np.sum(one == other)} of them targets)"
        else:
            low, high = bootstrap.difference_interval(eer - base[0], values - base[1], counts)
            line += f"  less cut's {100 * (eer - base[0]):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points"
        print(line)


def _trials(enrolled, tests, both):
    """(scores, the speaker of each side) of every recording against those of all other sessions; both: also where the two have
    changed sides."""
    number = {name: place for place, name in enumerate(sorted({speaker for speaker, _ in enrolled}))}
    pairs = itertools.permutations(enrolled, 2) if both else itertools.combinations(enrolled, 2)
    rows = [(score, number[one[0]], number[other[0]]) for one, other in pairs for score in tests[other] @ enrolled[one]]
    scores, one, other = map(np.array, zip(*rows, strict=True))
    return scores, one, other
