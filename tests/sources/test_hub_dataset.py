"""The real clients against the stand-in for the hub, in their own process: they read HF_ENDPOINT once."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import ClassLabel, Dataset

from tests.workspace import ROOT, hub_program, python, run


def served(shared, root, tmp_path, *command):
    """Run a command with the hub served from `root`: (process, bytes served)."""
    report = tmp_path / "report.json"
    before = (*hub_program(shared, root), "--report", report, "--")
    process = python(tmp_path, *command, before=before, HF_HOME=str(tmp_path / "hf"))
    return process, json.loads(report.read_text())["served"]


def parameters(tmp_path, **data):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["encoder"]["source"] = "speechbrain/spkrec-ecapa-voxceleb"
    params["data"] |= {"source": "hub"} | data
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return params


def official(shared):
    """{utt_id: split} of the stand-in's data set, from its files."""
    files = list((shared / "hub/root/datasets/s3prl/superb/si").glob("*.parquet"))
    assert len(files) == 3
    return {
        name: file.name.partition("-")[0]
        for file in files
        for name in pq.read_table(file, columns=["file"])["file"].to_pylist()
    }


def test_only_the_rows_needed_are_fetched_and_unseen_speakers_evaluate(shared, tmp_path):
    parameters(tmp_path, speakers=12, utterances_per_speaker=3)
    process, sent = served(shared, shared / "hub" / "root", tmp_path, "-m", "src.sample_data")
    assert process.returncode == 0, process.stderr
    lines = (tmp_path / "data" / "manifest.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    unseen = {f"id{number}" for number in range(10_270, 10_310)}
    evaluation = {speaker for _, speaker, split, *_ in rows if split in ("test", "validation")}
    others = {speaker for _, speaker, split, *_ in rows if split in ("calibration", "finetune")}
    assert len(rows) == 36 and len(evaluation) == len(others) == 6
    assert evaluation <= unseen and not others & unseen
    assert all((speaker in unseen) == (seen == "0") for _, speaker, _, _, _, seen, *_ in rows)
    parts = official(shared)
    assert all((sex, part) == ("", parts[utt_id]) for utt_id, *_, sex, part in rows)
    assert all(utt_id.startswith(f"{speaker}/so762/") for utt_id, speaker, *_ in rows)
    stored = sum(path.stat().st_size for path in (shared / "hub/root/datasets").rglob("*.parquet"))
    assert sent < 0.7 * stored
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"audio", "manifest.csv", "skipped.csv"}


CHECKS = """
import json, sys, tempfile
from collections import Counter
from src.runtime.errors import AudioError, InputError
from src.sources import hub_dataset

def offered(repo, config, speaker_column=None):
    try:
        found = hub_dataset.candidates(repo, config, None, 8, tempfile.mkdtemp(), speaker_column)
    except InputError as error:
        return str(error)
    outcome = []
    for candidate in found:
        try:
            outcome.append([candidate.utt_id, candidate.speaker, candidate.sex, candidate.part,
                            len(candidate.read()[0])])
        except AudioError as error:
            outcome.append([candidate.utt_id, candidate.speaker, candidate.sex, candidate.part, str(error)])
    return outcome

print(json.dumps([offered(*arguments) for arguments in json.loads(sys.argv[1])]))
"""


def test_other_layouts_and_what_is_not_there(shared, tmp_path):
    clip = next((shared / "speech").rglob("*.flac")).read_bytes()
    repo = tmp_path / "root" / "datasets" / "some" / "speech"
    rows = {
        "speaker_id": [7, 7, None, 9],
        "gender": ["male", None, "female", "Female"],
        "audio": [{"bytes": clip, "path": name} for name in ("/data/../a.flac", "a.flac", "b.flac")]
        + [{"bytes": None, "path": None}],
    }
    voices = {"clip": rows["audio"], "client_id": ["e", "e\u0301", "\u00e9", None], "reader": [4, 4, 5, 5]}
    tables = {"good": rows, "mute": {"speaker_id": [1]}, "nobody": {"audio": rows["audio"]}, "voices": voices}
    for folder, table in tables.items():
        (repo / folder).mkdir(parents=True)
        pq.write_table(pa.table(table), repo / folder / "train-00000.parquet")
    (repo / "torn").mkdir()  # a speaker whose sex is not the same in both splits
    for split, sex in (("test", 1), ("train", 0)):
        table = Dataset.from_dict(
            {"file": [f"{'ab'[sex == 0]}.flac"], "label": ["7"], "sex": [sex], "audio": [rows["audio"][0]]}
        )
        table = table.cast_column("sex", ClassLabel(names=["female", "male"]))
        table.to_parquet(repo / "torn" / f"{split}-00000.parquet")
    (repo / "broken").mkdir()
    (repo / "broken" / "train-00000.parquet").write_bytes(b"PAR1 this is not a parquet file PAR1")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*\n"
        for name in ("good", "mute", "nobody", "broken", "voices")
    )
    configs += (
        "- config_name: torn\n  data_files:\n  - split: train\n    path: torn/train-*\n"
        "  - split: test\n    path: torn/test-*\n"
    )
    (repo / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    asked = [
        *(("some/speech", config) for config in ("good", "torn", "mute", "nobody", "broken", "none")),
        ("some/thing", "good"),
        ("not a hub id", "good"),
        ("some/speech", "voices"),
        ("some/speech", "voices", "reader"),
        ("some/speech", "voices", "client"),
    ]
    process, _ = served(shared, tmp_path / "root", tmp_path, "-c", CHECKS, json.dumps(asked))
    assert process.returncode == 0, process.stderr
    good, torn, mute, nobody, broken, none, thing, name, clients, readers, client = json.loads(
        process.stdout.splitlines()[-1]
    )
    length = good[0][-1]
    assert good == [
        ["data/a.flac", "7", "m", "train", length],
        ["a.flac", "7", "m", "train", length],
        ["9/train", "9", "f", "train", "empty"],
    ]
    assert length > 16_000 and "rows without a speaker (1)" in process.stderr
    assert torn == [["a.flac", "7", "", "test", length], ["b.flac", "7", "", "train", length]]
    assert mute == "data.repo: some/speech: data.config mute: no column of audio; its columns are speaker_id"
    names = "label or speaker or speaker_id or spk_id or client_id"
    lacking = f"no column of speakers ({names}); data.speaker_column names it; its columns are"
    assert nobody == f"data.repo: some/speech: data.config nobody: {lacking} audio"
    assert [speaker for _, speaker, *_ in clients] == ["e", "\u00e9", "\u00e9"]
    assert [speaker for _, speaker, *_ in readers] == ["4", "4", "5", "5"] and readers[0][-1] == length
    assert client.endswith(f"{lacking.replace(names, 'client')} clip, client_id, reader")
    assert "not readable as parquet" in broken
    assert "data.config none" in none and "good" in none
    assert thing == "data.repo: some/thing: no such repository on the hub, or it is private"
    assert name == "data.repo: not a hub id: not a hub id (owner/name)"


def test_an_unreachable_hub_is_told_in_a_line(tmp_path):
    params = parameters(tmp_path)
    (tmp_path / "encoder").mkdir()
    params["encoder"]["source"] = "encoder"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    process = run(tmp_path, "sample_data", HF_HOME=str(tmp_path / "hf"), HF_ENDPOINT="http://127.0.0.1:9")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "error: data.repo: s3prl/superb" in process.stderr and "the hub cannot be reached" in process.stderr
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())
