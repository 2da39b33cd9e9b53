"""What a file in a folder of speech, or beside it, says of the speakers: their sexes."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from src.data.tables import read_csv

OWN = ("speakers.csv", "speaker", "sex")
# https://www.robots.ox.ac.uk/~vgg/data/voxceleb/; published with tabs and with commas, padded with spaces.
VOXCELEB = (("vox1_meta.csv", "VoxCeleb1 ID", "Gender"), ("vox2_meta.csv", "VoxCeleb2 ID", "Gender"))
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class SpeakerTable:
    """{speaker: f, m or, left open, empty} of a file."""

    path: Path
    sexes: dict[str, str]

    def usage(self, speakers: set[str]) -> str:
        """How many of its speakers are among `speakers`, those of the folder, in one line."""
        unknown = sorted(self.sexes.keys() - speakers)
        if not unknown:
            return f"all {len(self.sexes)} speakers of {self.path.name} are in the folder"
        are = "is" if len(unknown) == 1 else "are"
        text = f"{len(unknown)} of {len(self.sexes)} speakers of {self.path.name} {are} not in the folder"
        bare = {name.lstrip("0").casefold(): name for name in speakers - self.sexes.keys()}
        near = [(bare[key], name) for name in unknown if (key := name.lstrip("0").casefold()) in bare]
        if near:
            return f"{text}: {near[0][1]!r}, for one, where the folder has {near[0][0]!r}"
        return f"{text}: {', '.join(unknown[:_SHOWN])}{', ...' if len(unknown) > _SHOWN else ''}"


def sex_of(text: str) -> str:
    """f or m from f, female, m or male in any case, with spaces around or not; empty from anything else."""
    return {"f": "f", "female": "f", "m": "m", "male": "m"}.get(text.strip().lower(), "")


def read_tables(folder: str | Path) -> list[SpeakerTable]:
    """speakers.csv in the folder; else VoxCeleb's own files in it or beside it; none where there is no such file.

    Raises InputError, with the line, for what is not such a file or contradicts itself.
    """
    folder = Path(folder).absolute()
    own, *columns = OWN
    if (folder / own).exists():
        return [_read(folder / own, *columns)]
    places = [(place / name, columns) for name, *columns in VOXCELEB for place in (folder, folder.parent)]
    tables = {path.name: (path, columns) for path, columns in reversed(places) if path.exists()}
    return [_read(path, *columns) for path, columns in tables.values()]


def _read(path, speaker, sex):
    sexes = {}

    def add(row):
        name, value = unicodedata.normalize("NFC", row[speaker].strip()), row[sex].strip()
        if not name or bool(value) != bool(sex_of(value)):
            raise ValueError(f"{speaker} {name!r}, {sex} {value!r}: a name and f, m or nothing needed")
        if sexes.setdefault(name, sex_of(value)) != sex_of(value):
            raise ValueError(f"{name}: another {sex} than in a line before")

    read_csv(path, (speaker, sex), add, delimiters=",;\t")
    return SpeakerTable(path, sexes)
