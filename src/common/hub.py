"""The model and data hub: what is taken from it is locked, and its faults are told in one line."""

import contextlib
import json
import time
from pathlib import Path, PurePosixPath

import httpx2
import huggingface_hub
from huggingface_hub import constants, errors

from src.common.files import sha256, write_json
from src.runtime.errors import InputError

LOCK = "hub.lock.json"
_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT  # seconds without an answer; set by the environment, 10 by default
_SLOWEST = 1_000  # bytes a second of an answer, over any _TIMEOUT seconds
_WAITS = (1, 2)  # seconds before the second attempt at a request, and before the third and last
_PASSING = (408, 429, 500, 502, 503, 504)  # states of a hub that may answer a moment later


class _GivenUp(httpx2.TransportError):
    """The last attempt failed. Of a kind that the hub's clients pass on: none of them tries again or does without."""


class _Client(httpx2.Client):
    """What the hub's clients send their requests by: each is bounded in time, and tried again where it fails."""

    def send(self, request, **options):
        timeouts = {kind: min(own or _TIMEOUT, _TIMEOUT) for kind, own in request.extensions["timeout"].items()}
        request.extensions = {**request.extensions, "timeout": timeouts}
        for wait in (*_WAITS, None):
            try:
                response = super().send(request, **options)
                if response.status_code not in _PASSING:
                    return response
                response.close()
                failure = f"{response.status_code} {response.reason_phrase}"
            except httpx2.TransportError as error:
                failure = first_line(error)
            if wait is not None:
                time.sleep(wait)
        raise _GivenUp(f"{request.url.copy_with(query=None)}: {failure}, {len(_WAITS) + 1} times")


class _Steady(httpx2.SyncByteStream):
    """The body of an answer, which fails where it is too slow; a timeout between its bytes alone never would."""

    def __init__(self, stream):
        self.stream = stream

    def __iter__(self):
        begun, size = time.monotonic(), 0
        try:
            for part in self.stream:
                size += len(part)
                yield part
                if (passed := time.monotonic() - begun) > _TIMEOUT:
                    if size < _SLOWEST * passed:
                        raise httpx2.ReadTimeout(f"{size:,} bytes in {passed:.0f} s")
                    begun, size = time.monotonic(), 0
        except httpx2.TransportError as error:
            # Of all kinds, a download is resumed after this one, and its message told.
            raise httpx2.RemoteProtocolError(first_line(error)) from error

    def close(self):
        self.stream.close()


def _steadied(response):
    response.stream = _Steady(response.stream)


_HOOKS = huggingface_hub.get_session().event_hooks | {"response": [_steadied]}
huggingface_hub.set_client_factory(lambda: _Client(event_hooks=_HOOKS, follow_redirects=True))
constants.HF_HUB_DISABLE_XET = True  # downloads by another client, with bounds of its own


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
    and `Lock`, and when the file is larger than `largest` bytes, or locked and gone.
    """
    lock = Lock("models", repo, revision, what)
    with explained(what, revision):
        try:
            path = _download(repo, name, lock.commit, revision, what, largest)
        except errors.RemoteEntryNotFoundError:
            if name in lock.files:
                raise InputError(f"{what}: {name} is gone from the hub, and {LOCK} has it") from None
            return None
    digest = sha256(path)
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
        found = huggingface_hub.get_hf_file_metadata(url)
    except (httpx2.TransportError, errors.OfflineModeIsEnabled):
        if cached:
            return cached
        raise
    if (found.size or 0) > largest:
        raise InputError(f"{what}: {name} has {found.size:,} bytes; {largest:,} are the most that is read")
    return Path(huggingface_hub.hf_hub_download(repo, name, revision=found.commit_hash))


@contextlib.contextmanager
def explained(what, revision=None):
    """Turn what the hub's clients raise into an InputError that starts with `what`."""
    try:
        yield
    except InputError:
        raise
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
    except Exception as error:  # whatever they meet with in an answer that is not what they expect
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{what}: the hub's answer is not understood: {why}") from None


def first_line(error):
    """The first line of an exception's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
