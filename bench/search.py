"""How long a search among many enrolled voiceprints takes, on one core: python -m bench.search --speakers 1000000

Fills a gallery in a temporary folder with made-up voiceprints, loads it as `src.identify` does, and searches it for speakers
who are in it and for others. The voiceprints are of a normal distribution with the spectrum of real ones: the k-th principal
component has a standard deviation of `exp(-k / 60)`, and their mean a length of 0.7; --flat gives all components the same
and no mean, which real ones do not have and which is the worst for the search. Prints times, memory, and how many of the
searches found the very five that all cosines give: all of them, or the program ends with an error.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.search")

import tempfile
import time
from pathlib import Path

import numpy as np
from pydantic import Field

from bench.extraction import peak_mb
from src.common.schema import Section
from src.runtime import gallery
from src.runtime.errors import InputError
from src.runtime.scoring import normalised
from src.runtime.search import Index

DIMENSIONS, TOP, _PART = 192, 5, 8192


class Options(Section):
    speakers: int = Field(1_000_000, ge=1)
    searches: int = Field(1000, ge=10)
    checked: int = Field(50, ge=0, description="searches compared with all cosines")
    flat: bool = Field(False, description="voiceprints whose components all have the same variance")


def main(speakers, searches, checked, flat=False):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.db"
        fill(path, rng, speakers, flat)
        with gallery.opened(path) as made:
            before, start = peak_mb(), time.perf_counter()
            rows = 0
            for ids, _ in made.voiceprints():
                rows += len(ids)
            read, start = time.perf_counter() - start, time.perf_counter()
            index = Index(made.voiceprints(), len(made))
            loaded = time.perf_counter() - start
        print(
            f"{speakers:,} speakers, a file of {path.stat().st_size / 1e6:,.0f} MB: loaded in {loaded:.1f} s, of which reading {read:.1f} s"
        )
    memory = sum(value.nbytes for value in vars(index).values() if isinstance(value, np.ndarray)) / 1e6
    print(f"index {memory:,.0f} MB; peak of the process {peak_mb():,.0f} MB, {before:,.0f} MB before")
    times, wrong = [], 0
    for number in range(searches):
        probe = voices(rng, 1, flat)[0]
        if number % 2:  # of somebody who is enrolled, as far from the voiceprint as recordings of one speaker are
            probe = normalised(index.voiceprints[rng.integers(speakers)] + 0.9 * probe).astype(np.float32)
        start = time.perf_counter()
        positions, _ = index.best(probe, TOP)
        times.append(1000 * (time.perf_counter() - start))
        if number < checked:
            wrong += {*positions} != {*np.argsort(-(index.voiceprints @ probe))[:TOP]}
    middle, high, highest = np.quantile(times, (0.5, 0.99, 1))
    print(
        f"{searches:,} searches for the best {TOP}: median {middle:.1f} ms, p99 {high:.1f} ms, longest {highest:.1f} ms"
    )
    if wrong:
        raise InputError(f"{wrong} of {checked} searches missed one of the best {TOP}")
    print(f"{min(checked, searches)} searches compared with all cosines: the same {TOP}")


def voices(rng, number, flat):
    values = rng.standard_normal((number, DIMENSIONS), dtype=np.float32)
    if not flat:
        values *= np.exp(-np.arange(DIMENSIONS, dtype=np.float32) / 60)
        values[:, 0] += np.linalg.norm(np.exp(-np.arange(DIMENSIONS) / 60))
    return normalised(values).astype(np.float32)


def fill(path, rng, speakers, flat):
    """A gallery of speakers without recordings, in one transaction."""
    with gallery.opened(path, gallery.Model("0" * 64, "made up"), create=True) as made, made._transaction() as database:
        for start in range(0, speakers, _PART):
            part = voices(rng, min(_PART, speakers - start), flat)
            rows = ((f"speaker {start + i}", 1, 3.0, part[i].tobytes()) for i in range(len(part)))
            database.executemany(
                "INSERT INTO speakers (name, recordings, seconds, voiceprint) VALUES (?, ?, ?, ?)", rows
            )
