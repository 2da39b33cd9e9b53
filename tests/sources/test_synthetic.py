from dataclasses import replace
from pathlib import Path

import espeakng_loader

from src.sources import synthetic


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
