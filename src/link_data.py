"""Stage `link_data`: links to the folder of recordings and to the trial list, wherever they are.

DVC follows them and sees what is added, changed or removed there. A dependency on `${data.path}` itself would need that
folder for every source of data, and DVC expands no `~`.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.link_data", alone=True)

import os
from pathlib import Path

from src.common import params
from src.common.files import looked_for
from src.runtime.errors import InputError

FOLDER, TRIALS = Path("data/linked"), Path("data/linked_trials")


def main() -> None:
    data = params.load().data
    used = data.source == "folder"
    folder, trials = (Path(path) if path and used else None for path in (data.path, data.trials))
    if folder and not folder.is_dir():
        raise InputError(f"data.path: {folder}: no such folder{looked_for(folder)}")
    if folder and folder.resolve() == FOLDER.absolute():
        raise InputError(f"data.path: {folder} is where the link is made; give the folder itself")
    if trials and not trials.is_file():
        raise InputError(f"data.trials: {trials}: no such file{looked_for(trials)}")
    link(FOLDER, folder)
    link(TRIALS, trials)


def link(place: Path, target: Path | None) -> None:
    """Make `place` a link to `target`; without one, a folder with an empty file, for DVC warns of what is empty.

    Raises InputError where `place` is not what this leaves there.
    """
    nothing = place / "none"
    if place.is_symlink():
        place.unlink()
    elif place.is_dir() and {*place.iterdir()} <= {nothing}:
        nothing.unlink(missing_ok=True)
        place.rmdir()
    elif place.exists():
        raise InputError(f"{place}: not made by this stage; move it away")
    place.parent.mkdir(exist_ok=True)
    if target:
        os.symlink(target.resolve(), place)
    else:
        place.mkdir()
        nothing.touch()
