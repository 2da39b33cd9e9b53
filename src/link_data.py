"""Stage `link_data`: links to the folder of recordings and to the trial list, wherever they are.

DVC follows them and sees what is added, changed or removed there. A dependency on `${data.path}` itself would need that
folder for every source of data, and DVC expands no `~`.
"""

import os
from pathlib import Path

from src.common import params
from src.common.command import running
from src.runtime.errors import InputError

FOLDER, TRIALS = Path("data/linked"), Path("data/linked_trials")


def main() -> None:
    data = params.load().data
    for parameter, path, place, folder in (
        ("data.path", data.path, FOLDER, True),
        ("data.trials", data.trials, TRIALS, False),
    ):
        target = Path(path) if path and data.source == "folder" else None
        if target and not (target.is_dir() if folder else target.is_file()):
            raise InputError(f"{parameter}: {target}: no such {'folder' if folder else 'file'}")
        if target and target.resolve() == place.absolute():
            raise InputError(f"{parameter}: {target} is where the link is made; give the place of the data")
        link(place, target, folder)


def link(place: Path, target: Path | None, folder: bool) -> None:
    """Make `place` a link to `target`; without one, an empty folder or file, for DVC needs something there.

    Raises InputError where `place` is not what this leaves there.
    """
    if place.is_symlink() or (place.is_file() and not place.stat().st_size):
        place.unlink()
    elif place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    elif place.exists():
        raise InputError(f"{place}: not made by this stage; move it away")
    place.parent.mkdir(exist_ok=True)
    if target:
        os.symlink(target.resolve(), place)
    elif folder:
        place.mkdir()
    else:
        place.touch()


if __name__ == "__main__":
    with running():
        main()
