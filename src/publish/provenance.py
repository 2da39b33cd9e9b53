"""What a release was made from: the commit of the code, parameters, checksums."""

import subprocess
from pathlib import Path

from src.common.files import sha256
from src.data import manifest

CODE = ("src", "requirements.txt")


def provenance(params, files) -> dict:
    """`commit` (see `commit`), `params`, and `checksums` {path: SHA-256} of files, the manifest and a local encoder.

    Of params those are left out that are no part of the result: `pretrain`, and the storage of the search, whose URL
    may have a password in it.
    """
    encoder = Path(params.encoder.source)
    paths = [*map(Path, files), Path(manifest.PATH), *(encoder.iterdir() if encoder.is_dir() else ())]
    return {
        "commit": commit(),
        "params": params.model_dump(mode="json", exclude={"pretrain": True, "qat_search": {"storage"}}),
        "checksums": {str(path): sha256(path) for path in sorted(paths) if path.is_file()},
    }


def commit():
    """{`id`: the last commit that changed CODE, `modified`: whether it differs from that}; None outside Git.

    Not the one that is checked out: a commit of results or of words would give the same code another name.
    """
    try:
        found = _git("log", "-1", "--format=%H", "--", *CODE)
        return {"id": found, "modified": bool(_git("status", "--porcelain", "--", *CODE))} if found else None
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments):
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
