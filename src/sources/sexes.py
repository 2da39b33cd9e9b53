"""The sexes of a folder's speakers, where a file in it or beside it tells them."""

import csv
from pathlib import Path

from src.runtime.errors import InputError

OWN = ("speakers.csv", "speaker", "sex")
# https://www.robots.ox.ac.uk/~vgg/data/voxceleb/; names padded with spaces in the second.
VOXCELEB = (("vox1_meta.csv", "VoxCeleb1 ID", "Gender"), ("vox2_meta.csv", "VoxCeleb2 ID", "Gender"))


def sex_of(text) -> str:
    """f or m from f, female, m or male in any case, with spaces around or not; empty from anything else."""
    return {"f": "f", "female": "f", "m": "m", "male": "m"}.get(text.strip().lower(), "")


def read_sexes(folder) -> dict[str, str]:
    """{speaker: f or m} from speakers.csv in the folder; else from VoxCeleb's own files in it or beside it.

    Empty where there is no such file; a speaker whose sex is left empty is left out. Raises InputError,
    with the line, for what is not such a file or contradicts itself.
    """
    folder = Path(folder).absolute()
    own, *named = OWN
    if (folder / own).exists():
        return _read(folder / own, *named)
    found = {}
    for name, *named in VOXCELEB:
        path = next((place / name for place in (folder, folder.parent) if (place / name).exists()), None)
        found |= _read(path, *named) if path else {}
    return found


def _read(path, speaker, sex):
    found = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            # VoxCeleb's files have been published with tabs and with commas.
            lines = csv.reader(file, delimiter="\t" if "\t" in file.readline() else ",")
            file.seek(0)
            header = [name.strip() for name in next(lines, ())]
            if speaker not in header or sex not in header:
                raise InputError(f"{path}: line 1: the columns {speaker} and {sex} are needed")
            columns = header.index(speaker), header.index(sex)
            for values in filter(None, lines):
                where = f"{path}: line {lines.line_num}"
                if len(values) != len(header):
                    raise InputError(f"{where}: {len(values)} values, {len(header)} are needed")
                name, told = (values[column].strip() for column in columns)
                if not name or bool(told) != bool(sex_of(told)):
                    raise InputError(f"{where}: {speaker} {name!r}, {sex} {told!r}: a name and f, m or nothing needed")
                if found.setdefault(name, sex_of(told)) != sex_of(told):
                    raise InputError(f"{where}: {name}: another {sex} than in a line before")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return {name: told for name, told in found.items() if told}
