"""Faults of the model and data hub, told in one line."""
import contextlib

import httpx2
from huggingface_hub import errors

from src.errors import InputError


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
