"""The lock file, by the real clients against the stand-in for the hub: what changes after it was locked is refused."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from src.common.hub import LOCK, Lock
from src.runtime.errors import InputError
from tests.workspace import SMALL, change_parameters, hub_program, python, run, workspace

ENCODER, OTHER, DATA = "speechbrain/spkrec-ecapa-voxceleb", "example/ecapa-small", "s3prl/superb"
ASK = f"""
import sys, tempfile
from src.runtime.errors import InputError

def speakers(revision=None, source="{ENCODER}"):
    from src.encoder.labels import training_speakers
    return len(training_speakers(source, revision))
def encoder(source="{ENCODER}", **options):
    from src.encoder.load import load
    return sum(p.numel() for p in load(source, **options).mods["embedding_model"].parameters())
def find(name):
    from src.encoder.checkpoint import find
    return find("{ENCODER}", name)
def rows(revision=None):
    from src.sources import hub_dataset
    return len(hub_dataset.candidates("{DATA}", "si", revision, 8, tempfile.mkdtemp()))
for ask in sys.argv[1:]:
    try:
        print(eval(ask))
    except InputError as error:
        print(error)
"""


@pytest.fixture
def hub(shared, tmp_path):
    """A copy of the stand-in that can be changed, and what asks it: (root, ask(*expressions, cache, serve))."""
    root = tmp_path / "root"
    shutil.copytree(shared / "hub/root", root, copy_function=os.link)

    def ask(*expressions, cache="first", serve=True):
        before = (*hub_program(shared, root), "--") if serve else ()
        environment = {"HF_HOME": str(tmp_path / cache), "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = python(tmp_path, "-c", ASK, *expressions, before=before, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return root, ask


def change(path, old, new):
    """Replace in the copy alone, which shares its files with the stand-in."""
    content = path.read_bytes()
    assert old in content
    path.unlink()
    path.write_bytes(content.replace(old, new, 1))


def keep(root, folder, revisions):
    """Let a repository know these revisions as well. Their files are those that it has now, whatever they were."""
    path = root / folder / ".revisions"
    path.unlink(missing_ok=True)
    path.write_text("\n".join(revisions))


def locked(folder, key):
    return json.loads((folder / LOCK).read_text())[key]["commit"]


def test_what_is_taken_is_locked_and_a_change_is_refused_by_name(hub, tmp_path):
    root, ask = hub
    assert ask("speakers()", "encoder()", "rows()", "find('absent.ckpt')") == ["7165", "20767552", "960", "None"]
    lock = json.loads((tmp_path / LOCK).read_text())
    assert {key: sorted(entry["files"]) for key, entry in lock.items()} == {
        f"models/{ENCODER}@newest": ["embedding_model.ckpt", "hyperparams.yaml", "label_encoder.txt"],
        f"datasets/{DATA}@newest": [
            "README.md",
            *(f"si/{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")),
        ],
    }
    assert all(len(entry["commit"]) == 40 for entry in lock.values())
    written = (tmp_path / LOCK).read_bytes()
    assert ask("speakers()", serve=False) == ["7165"]  # locked and cached: no hub is needed

    change(root / "models" / ENCODER / "hyperparams.yaml", b"dilations: [1, 2, 3, 4, 1]", b"dilations: [1, 2, 3, 2, 1]")
    change(root / "models" / ENCODER / "label_encoder.txt", b"id10001", b"id99999")
    parquet = root / "datasets" / DATA / "si/test-00000-of-00001.parquet"
    change(parquet, parquet.read_bytes()[100:110], b"0123456789")
    assert ask("speakers()") == ["7165"]  # of the locked commit, which the cache has
    speakers, rows = ask("speakers()", "rows()", cache="second")
    for message, key in ((speakers, f"models/{ENCODER}@newest"), (rows, f"datasets/{DATA}@newest")):
        assert f"the hub no longer has the commit {lock[key]['commit']} of it, which {LOCK} has" in message
        assert message.endswith(f"delete the entry {key} there")

    # A hub that has other files under the same commit.
    keep(root, f"models/{ENCODER}", [lock[f"models/{ENCODER}@newest"]["commit"], "a-branch"])
    keep(root, f"datasets/{DATA}", [lock[f"datasets/{DATA}@newest"]["commit"]])
    speakers, encoder, trusted, rows = ask("speakers()", "encoder()", "encoder(trust=True)", "rows()", cache="second")
    messages = {speakers: "label_encoder.txt", encoder: "hyperparams.yaml", trusted: "hyperparams.yaml"}
    for message, name in messages.items():
        assert f"encoder.source: {ENCODER}, no folder, so from the hub: {name} has changed: its SHA-256 is " in message
        assert f"delete the entry models/{ENCODER}@newest there" in message
    assert f"data.repo: {DATA}: si/test-00000-of-00001.parquet has changed" in rows
    assert (tmp_path / LOCK).read_bytes() == written

    assert ask("speakers('a-branch')", cache="third") == ["7165"]  # another revision is another entry
    entries = json.loads((tmp_path / LOCK).read_text())
    del entries[f"models/{ENCODER}@newest"]
    (tmp_path / LOCK).write_text(json.dumps(entries))
    assert ask("speakers()", cache="third") == ["7165"]  # accepted
    assert list(json.loads((tmp_path / LOCK).read_text())[f"models/{ENCODER}@newest"]["files"]) == ["label_encoder.txt"]


def test_another_repositorys_commit_is_refused_and_what_to_do_is_said(hub, tmp_path):
    _, ask = hub
    pinned = "eac27266f68caa806381260bd44ace38b136c76a"
    other, published = ask(f"speakers(source='{OTHER}')", f"speakers('{pinned}')")
    assert other != published == "7165" and len(locked(tmp_path, f"models/{OTHER}@newest")) == 40
    encoder, rows = ask(f"speakers('{pinned}', '{OTHER}')", f"rows('{pinned}')")
    assert encoder.startswith(f"encoder.source: {OTHER}, ") and rows.startswith(f"data.repo: {DATA}: ")
    for message, parameter in ((encoder, "encoder.revision"), (rows, "data.revision")):
        assert f"the hub has no revision {pinned} of it, which {parameter} asks for; it takes a commit" in message


LOCAL = """
import sys
from src import sample_data
from src.encoder.load import load
sample_data.main()
load("models/pretrained/ecapa-mini")
assert not {"src.common.hub", "src.sources.hub_dataset", "datasets"} & set(sys.modules)
from huggingface_hub.utils import _http
assert _http._GLOBAL_CLIENT is None
"""


def test_no_proxy_matters_before_a_hub_is_asked_and_then_it_is_named_in_a_line(tmp_path):
    folder = workspace(tmp_path, {**SMALL, "data": {**SMALL["data"], "speakers": 8, "utterances_per_speaker": 2}})
    socks, nonsense = {"all_proxy": "socks5://127.0.0.1:1"}, {"HTTPS_PROXY": "nonsense://me:secret@127.0.0.1:1"}
    local = python(folder, "-c", LOCAL, **socks, **nonsense)
    assert local.returncode == 0, local.stderr
    change_parameters(folder, {"encoder": {"source": OTHER}})
    hub = run(folder, "sample_data", **nonsense, HF_HOME=str(tmp_path), HF_ENDPOINT="https://127.0.0.1:9")
    error = hub.stderr.splitlines()[-1]
    assert hub.returncode == 1 and "Traceback" not in hub.stderr and "secret" not in hub.stderr
    assert error.startswith(f"error: encoder.source: {OTHER}, ") and "the hub cannot be reached" in error
    assert "the proxy that the environment sets" in error


def test_a_cached_file_that_was_tampered_with_and_a_new_one_of_another_commit_are_refused(hub, tmp_path):
    root, ask = hub
    assert ask("speakers()") == ["7165"]
    (cached,) = (tmp_path / "first").rglob("label_encoder.txt")
    cached.write_text(cached.read_text().replace("id10001", "id99999"))
    assert "label_encoder.txt has changed" in ask("speakers()", serve=False)[0]
    keep(root, f"models/{ENCODER}", [locked(tmp_path, f"models/{ENCODER}@newest")])
    change(root / "models" / ENCODER / "hyperparams.yaml", b"1, 2, 3, 4, 1", b"1, 2, 3, 2, 1")
    (message,) = ask("find('hyperparams.yaml')")
    assert "hyperparams.yaml is of the commit" in message and f"{LOCK} has " in message


def test_a_file_too_large_to_be_one_is_not_fetched(hub):
    root, ask = hub
    path = root / "models" / ENCODER / "hyperparams.yaml"
    path.unlink()
    path.write_bytes(b"#" * 100_000)
    (message,) = ask("find('hyperparams.yaml')")
    assert "hyperparams.yaml has 100,000 bytes; 65,536 are the most that is read" in message


def test_a_lock_whose_commit_is_a_path_is_refused(hub, tmp_path):
    _, ask = hub
    entry = {"commit": "../../..", "files": {"label_encoder.txt": "0" * 64}}
    (tmp_path / LOCK).write_text(json.dumps({f"models/{ENCODER}@newest": entry}))
    (message,) = ask("speakers()")
    assert message.startswith("encoder.source: ") and re.search("is gone|no longer has the commit", message), message


def test_a_data_set_that_points_elsewhere_is_refused(hub, tmp_path):
    root, ask = hub
    readme, other = root / "datasets" / DATA / "README.md", tmp_path / "private.parquet"
    shutil.copy(root / "datasets" / DATA / "si/test-00000-of-00001.parquet", other)
    text = readme.read_bytes()
    for path in (str(other), "https://127.0.0.1:9/x.parquet"):
        readme.unlink()
        readme.write_bytes(text.replace(b"si/train-*", path.encode()))
        (message,) = ask("rows()", cache=path[-11:-8])
        assert message.startswith(f"data.repo: {DATA}: "), message
        assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"models/a/b@newest": {}}', '{"a": {"commit": 1, "files": {}}}', "[" * 100_000]
)
def test_a_damaged_lock_is_told(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path(LOCK).write_text(content)
    with pytest.raises(InputError, match=f"{LOCK}: damaged"):
        Lock("models", "a/b", None, "encoder.source: a/b")
