"""The speakers that an encoder was trained on, read from its checkpoint's label file."""
import ast
import logging
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, errors, hf_hub_download

from src.errors import InputError
from src.hub import explained

FILE = "label_encoder.txt"
# SpeechBrain's VoxCeleb recipe trains on VoxCeleb1-dev (1,211 speakers) and VoxCeleb2-dev (5,994). These
# leave out VoxCeleb1's 40 test speakers, also where a copy's label file just numbers its speakers.
_VOXCELEB_DEV = 1_211 + 5_994
_VOXCELEB1_TEST = frozenset(f"id{number}" for number in range(10_270, 10_310))
_TIMEOUT = 10  # seconds; the hub's client alone would go on trying for half a minute
_log = logging.getLogger(__name__)


def training_speakers(source, revision=None) -> set[str]:
    """Names of the training speakers of a checkpoint in SpeechBrain's pretrained layout.

    `source` is a folder or a hub id, of which just the label file is fetched, at `revision`. A checkpoint
    without that file gives an empty set, and a warning is logged. Raises InputError when `source` is
    neither a folder nor a repository, the hub cannot be reached and has not been before, or the file
    is not SpeechBrain's. VoxCeleb1's test speakers never count as trained on by a VoxCeleb-dev checkpoint.
    """
    file = Path(source, FILE) if Path(source).is_dir() else _fetched(str(source), revision)
    if file is None or not file.is_file():
        _log.warning("encoder.source: %s has no %s: all speakers count as unseen", source, FILE)
        return set()
    speakers = parse(file)
    return speakers - _VOXCELEB1_TEST if len(speakers) == _VOXCELEB_DEV else speakers


def _fetched(repo, revision):
    what = f"encoder.source: {repo}: no such folder here"
    with explained(what, revision):
        try:
            HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
        except (httpx2.TransportError, errors.OfflineModeIsEnabled) as unreachable:
            try:
                return Path(hf_hub_download(repo, FILE, revision=revision, local_files_only=True))
            except errors.LocalEntryNotFoundError:
                raise unreachable from None
        try:
            return Path(hf_hub_download(repo, FILE, revision=revision))
        except errors.RemoteEntryNotFoundError:
            return None


def parse(file) -> set[str]:
    """Labels that SpeechBrain's CategoricalEncoder saved: lines `'label' => index` down to a `====` line."""
    labels = set()
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.startswith("===="):
            return labels
        label = line.rpartition(" => ")[0]
        try:
            labels.add(str(ast.literal_eval(label)))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise InputError(f"{file}: line {number}: not SpeechBrain's `'label' => index`") from None
    raise InputError(f"{file}: not SpeechBrain's label file: it has no ==== line")
