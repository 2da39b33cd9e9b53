from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from src.runtime.errors import InputError
from src.sources import espeak, synthetic


def test_sexes_are_those_that_espeak_ng_states():
    """Where its variant does not say, the pitch is that of espeak-ng's base voice, whose 82 to 118 Hz are a man's."""
    found = {}
    for variant in synthetic._VARIANTS:
        text = Path(espeakng_loader.get_data_path(), "voices/!v", variant).read_text(encoding="utf-8")
        said = dict(line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) > 1)
        stated = said.get("gender", "").split()
        high = float(said.get("pitch", "82 118").split()[1])
        found[variant] = stated[0][0].lower() if stated else "m" if high < 180 else ""
    speaker = synthetic.speaker(0, 0, "eval")
    for variant, sex in found.items():
        assert replace(speaker, voice=f"en-us+{variant}").sex == sex, variant


def test_a_family_has_one_sex():
    found = synthetic.candidates(3 * synthetic.FAMILY, 2, seed=0)
    sexes = [candidate.sex for candidate in found]
    assert len({(candidate.speaker, candidate.sex) for candidate in found}) == 3 * synthetic.FAMILY
    assert {len(set(sexes[i : i + 2 * synthetic.FAMILY])) for i in range(0, len(sexes), 2 * synthetic.FAMILY)} == {1}


def test_an_utterance_does_not_depend_on_what_was_said_before():
    settings = {"words_per_minute": 160, "pitch": 50, "pitch_range": 50}
    for voice in ("en-us+f2", "fi+klatt", "en-gb-scotland+anika"):
        first = espeak.say("seven", voice, **settings)
        espeak.say("listen answer measure", "hu+travis", **settings)
        assert np.array_equal(espeak.say("seven", voice, **settings), first)
        assert not np.array_equal(espeak.say("seven", "ru+m1", **settings)[:1000], first[:1000])


def test_threads_say_what_one_would():
    def say(pitch):
        return espeak.say("river", "en-us+m3", words_per_minute=160, pitch=pitch, pitch_range=50)

    pitches = range(20, 80, 10)
    with ThreadPoolExecutor(3) as pool:
        assert all(map(np.array_equal, pool.map(say, pitches), map(say, pitches)))


def test_a_voice_that_is_not_there_is_an_error_and_the_next_utterance_is_made():
    settings = {"words_per_minute": 160, "pitch": 50, "pitch_range": 50}
    with pytest.raises(InputError, match="espeak-ng has no voice 'nobody'"):
        espeak.say("seven", "nobody", **settings)
    assert np.abs(espeak.say("seven", "en-us", **settings)).max() > 0.1
