import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared():
    """Folder with real speech (`speech`) and a stand-in for the hub (`hub`)."""
    folder = os.environ.get("SPEAKER_SHARED")
    if not folder:
        pytest.skip("SPEAKER_SHARED is not set: no real speech, no stand-in for the hub")
    return Path(folder)
