"""What is taken from the model and data hub: locked, of a bounded size, its faults user-facing errors in one line.

Retries are those of huggingface_hub. Import this module only where a hub is asked: local work needs no network.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils._http import default_client_factory
from pydantic import BaseModel, TypeAdapter, ValidationError

from src.common.files import sha256, write_json
from src.runtime.errors import InputError, one_line

LOCK = "hub.lock.json"
_PARAMETERS = {"models": "encoder.revision", "datasets": "data.revision"}
constants.HF_HUB_DISABLE_XET = True  # downloads by another client, past the timeout below


class _Entry(BaseModel):
    commit: str
    files: dict[str, str]  # {name: SHA-256}


_ENTRIES = TypeAdapter(dict[str, _Entry])


def _client() -> httpx2.Client:
    """huggingface_hub's own, made at the first request. Raises ConnectionError for a proxy that cannot be used."""
    try:
        client = default_client_factory()
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise ConnectionError(f"the proxy that the environment sets: {one_line(error)}") from None
    client.event_hooks["request"].append(_bounded)
    return client


def _bounded(request: httpx2.Request) -> None:
    """Some requests of huggingface_hub and datasets have no timeout, and a silent hub would hold a stage forever."""
    longest = constants.HF_HUB_DOWNLOAD_TIMEOUT  # seconds; set by the environment, 10 by default
    timeouts = {phase: min(seconds or longest, longest) for phase, seconds in request.extensions["timeout"].items()}
    request.extensions = {**request.extensions, "timeout": timeouts}


huggingface_hub.set_client_factory(_client)


class Lock:
    """What LOCK has of a repository at a revision: the commit, and the SHA-256 of every file used so far.

    kind: "models" or "datasets"; revision: a commit, branch or tag, or None for the newest; what: the start of
    messages. Raises InputError when LOCK is there and damaged.
    """

    def __init__(self, kind: str, repo: str, revision: str | None, what: str):
        self.repo, self.revision, self.what, self.parameter = repo, revision, what, _PARAMETERS[kind]
        self.key = f"{kind}/{repo}@{revision or 'newest'}"
        entry = _read().get(self.key)
        self.commit, self.files = (entry.commit, entry.files) if entry else (None, {})

    def unknown(self) -> InputError:
        """The error where the hub does not know what was asked for."""
        if self.commit:
            return InputError(
                f"{self.what}: the hub no longer has the commit {self.commit} of it, which {LOCK} has; if what the hub "
                f"has today is to be trusted, delete the entry {self.key} there"
            )
        return InputError(
            f"{self.what}: the hub has no revision {self.revision} of it, which {self.parameter} asks for; "
            "it takes a commit, branch or tag of this repository, or main for its newest"
        )

    def check(self, commit: str, files: dict[str, str]) -> None:
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
            entries = {**_read(), self.key: _Entry(commit=self.commit, files=self.files)}
            write_json(LOCK, {key: entry.model_dump() for key, entry in sorted(entries.items())})


def _read() -> dict[str, _Entry]:
    try:
        return _ENTRIES.validate_json(Path(LOCK).read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError:
        raise InputError(f"{LOCK}: damaged; restore it, or delete it to lock anew") from None


def fetch(lock: Lock, name: str, largest: int) -> Path | None:
    """Path, in the client's cache, of a file of a model repository; None where the repository has no such file.

    The file is that of the commit in LOCK, and has the SHA-256 that is there; at first use both are written.
    What is locked and in the cache needs no connection. Raises InputError as `explained` and `Lock`, and when the
    file is larger than `largest` bytes, or locked and gone.
    """
    with explained(lock.what, lock):
        try:
            revision = lock.commit or lock.revision
            file = huggingface_hub.hf_hub_download(lock.repo, name, revision=revision, dry_run=True)
            if (file.file_size or 0) > largest:
                raise InputError(
                    f"{lock.what}: {name} has {file.file_size:,} bytes; {largest:,} are the most that is read"
                )
            path = Path(huggingface_hub.hf_hub_download(lock.repo, name, revision=file.commit_hash))
        except errors.RemoteEntryNotFoundError:
            if name in lock.files:
                raise InputError(f"{lock.what}: {name} is gone from the hub, and {LOCK} has it") from None
            return None
    lock.check(file.commit_hash, {name: sha256(path)})
    return path


@contextlib.contextmanager
def explained(what: str, lock: Lock | None = None) -> Iterator[None]:
    """Turn what the hub's clients raise into an InputError that starts with `what`."""
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError:
        raise InputError(f"{what}: access to this hub repository is restricted") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{what}: no such repository on the hub, or it is private") from None
    except errors.RevisionNotFoundError as error:
        raise (lock.unknown() if lock else InputError(f"{what}: {one_line(error)}")) from None
    except errors.HFValidationError:
        raise InputError(f"{what}: not a hub id (owner/name)") from None
    except (httpx2.HTTPError, OSError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):  # it says that there was a cause, and not which
            error = error.__cause__ or error
        why = f"{one_line(error)} ({constants.ENDPOINT})"
        raise InputError(f"{what}: the hub cannot be reached, or failed: {why}") from None
    except Exception as error:  # whatever they meet with in an answer that is not what they expect
        why = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{what}: the hub's answer is not understood: {why}") from None
