"""The model and data hub: what is taken from it is locked, and its faults are told in one line."""
import contextlib
import hashlib
import json
from pathlib import Path, PurePosixPath

import httpx2
import huggingface_hub
from huggingface_hub import errors

from src.errors import InputError
from src.files import write_json

LOCK = "hub.lock.json"
TIMEOUT = 10  # seconds of the first call to the hub; its client alone would go on trying for half a minute


class Lock:
    """What LOCK has of a repository at a revision: the commit, and the SHA-256 of every file used so far.

    kind: "models" or "datasets"; revision: a commit, branch or tag, or null for the newest. Raises InputError,
    as `check` does with `what` in front, when LOCK is there and is not such a file.
    """

    def __init__(self, kind, repo, revision, what):
        self.key, self.what = f"{kind}/{repo}@{revision or 'newest'}", what
        entry = _read().get(self.key, {"commit": None, "files": {}})
        self.commit, self.files = entry["commit"], entry["files"]

    def check(self, commit, files):
        """Add what is new; raise InputError where a file, {name: SHA-256}, is not the one that was locked."""
        for name, digest in files.items():
            locked = self.files.get(name, digest)
            if locked != digest:
                raise InputError(
                    f"{self.what}: {name} has changed: its SHA-256 is {digest}, and {LOCK} has {locked}; if the new "
                    f"file is to be trusted, delete the entry {self.key} there"
                )
        new = files.keys() - self.files.keys()
        if new and self.commit not in (None, commit):
            raise InputError(f"{self.what}: {min(new)} is of the commit {commit}, and {LOCK} has {self.commit}")
        if new:
            self.commit, self.files = self.commit or commit, dict(sorted({**self.files, **files}.items()))
            write_json(LOCK, dict(sorted({**_read(), self.key: {"commit": self.commit, "files": self.files}}.items())))


def _read():
    try:
        content = json.loads(Path(LOCK).read_text(encoding="utf-8"))
        for entry in content.values():
            if not all(isinstance(text, str) for text in (entry["commit"], *entry["files"].values())):
                raise TypeError
        return content
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{LOCK}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{LOCK}: damaged; restore it, or delete it to lock anew") from None


def fetch(repo, name, revision, what, largest):
    """Path, in the client's cache, of a file of a model repository; None where the repository has no such file.

    The file is that of the commit in LOCK, and has the SHA-256 that is there; at first use both are written.
    What is locked and in the cache needs no connection. Raises InputError, starting with `what`, as `explained`
    and `Lock`, and when the file is larger than `largest` bytes.
    """
    lock = Lock("models", repo, revision, what)
    with explained(what, revision):
        try:
            path = _download(repo, name, lock.commit, revision, what, largest)
        except errors.RemoteEntryNotFoundError:
            return None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # The cache keeps a file as <repository>/snapshots/<commit>/<name>.
    lock.check(path.parents[len(PurePosixPath(name).parts) - 1].name, {name: digest})
    return path


def _download(repo, name, commit, revision, what, largest):
    cached = huggingface_hub.try_to_load_from_cache(repo, name, revision=commit or revision)
    cached = Path(cached) if isinstance(cached, str) else None
    if cached and commit:
        return cached
    try:
        url = huggingface_hub.hf_hub_url(repo, name, revision=commit or revision)
        found = huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT)
    except (httpx2.TransportError, errors.OfflineModeIsEnabled):
        if cached:
            return cached
        raise
    if (found.size or 0) > largest:
        raise InputError(f"{what}: {name} has {found.size:,} bytes; {largest:,} are the most that is read")
    return Path(huggingface_hub.hf_hub_download(repo, name, revision=found.commit_hash))


@contextlib.contextmanager
def explained(what, revision=None):
    """Turn what huggingface_hub raises into an InputError that starts with `what`."""
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(f"{what}: access to this hub repository is restricted") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{what}: no such repository on the hub, or it is private") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{what}: the hub has no revision {revision} of it") from None
    except errors.HFValidationError:
        raise InputError(f"{what}: not a hub id (owner/name)") from None
    except (httpx2.HTTPError, OSError) as error:
        raise InputError(f"{what}: the hub cannot be reached, or failed: {first_line(error)}") from None


def first_line(error):
    """The first line of an exception's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
