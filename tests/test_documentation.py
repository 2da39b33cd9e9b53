"""Every command of the documents, run as a user runs it, in a clone with a small configuration.

`runs` assigns commands to the test that runs them. A command that no test runs makes the first test here fail.
"""

import base64
import csv
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile

from tests.workspace import (
    PASSWORD,
    ROOT,
    call,
    change_parameters,
    clone,
    commit,
    free_port,
    s3_server,
    served,
    small_clone,
)

DOCUMENTS = ("README.md", "docs/experiments.md", "docs/search.md", "docs/evaluation.md", "bench/README.md")
PROGRAMS = (".", "createdb", "dvc", "export", "git", "hf", "make", "optuna", "optuna-dashboard", "pip", "python")
ACTIVATE = ". .venv/bin/activate"
ASSIGNED, RAN = set(), set()
WAIT = 600  # seconds, at most, for what another process does
slow = pytest.mark.slow


def commands(document):
    """The commands of its sh and console blocks, without comments, and those in its text that have an argument."""
    text, found = (ROOT / document).read_text(), set()
    block = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for language, lines in block.findall(text):
        if language in ("sh", "console"):
            lines = [line for line in lines.splitlines() if language == "sh" or line.startswith("$ ")]
            found |= {re.sub(r"(^|\s+)#.*", "", line.removeprefix("$ ")) for line in lines}
    for span in re.findall(r"`([^`]+)`", block.sub("", text)):
        program, *arguments = span.split()
        if program in PROGRAMS and arguments:
            found.add(" ".join(span.split()))
    return found - {""}


def runs(*those):
    """These commands are run by the test: it fails when `shell` was not given each of them."""
    ASSIGNED.update(those)

    def decorate(test):
        @functools.wraps(test)
        def checked(*arguments, **fixtures):
            test(*arguments, **fixtures)
            assert set(those) <= RAN, set(those) - RAN

        return checked

    return decorate


def prepare(folder, those, replaced, env):
    """(arguments of bash, environment) for commands of the documents; `replaced` puts real things for placeholders."""
    RAN.update((ACTIVATE, *those))
    text = " && ".join(those)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, str(new))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST_"))}
    return ["bash", "-c", f"{ACTIVATE} && {text}"], kept | {"HF_HOME": str(folder / ".venv/hub")} | env


def shell(folder, *those, replaced={}, before=(), statuses=(0,), **env):
    """What commands of the documents print in a folder. before: arguments of a program that runs them."""
    command, env = prepare(folder, those, replaced, env)
    with tempfile.TemporaryFile("w+") as output:  # what they leave running would hold a pipe open
        done = subprocess.run(
            [*before, *command], cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, timeout=3 * WAIT
        )
        output.seek(0)
        text = output.read()
    assert done.returncode in statuses, text
    return text


def until(what, wanted, process=None):
    """What `wanted` gives, as soon as it gives something; `what` says what that is."""
    end = time.monotonic() + WAIT
    while not (found := wanted()):
        assert time.monotonic() < end, f"not seen: {what}"
        assert process is None or process.poll() is None, f"ended without {what}"
        time.sleep(0.5)
    return found


def metric(folder, name):
    return json.loads((folder / f"metrics/{name}.json").read_text())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return small_clone(tmp_path_factory.mktemp("documentation") / "fresh")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a clone in which `make repro` ran, committed; what it printed)."""
    folder = small_clone(tmp_path_factory.mktemp("documentation") / "made")
    printed = shell(folder, "make repro")
    commit(folder, "Run")
    return folder, printed


@pytest.fixture
def place(made, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(made[0], tmp_path / "place", symlinks=True))


def test_every_command_of_the_documents_is_run_by_a_test():
    found = {document: commands(document) for document in DOCUMENTS}
    assert all(len(those) > 3 for those in found.values())
    assert {document: those - ASSIGNED for document, those in found.items() if those - ASSIGNED} == {}
    assert ASSIGNED - set().union(*found.values()) == set()


@runs("make test")
def test_make_runs_the_tests(fresh):
    """One file of them: all are what runs this. CI runs the command as it is (tests/test_workflow.py)."""
    printed = shell(fresh, "make test", PYTEST_ADDOPTS="tests/test_pipeline.py -n 0")
    assert re.search(r"\d\d passed", printed)


@runs(
    "dvc metrics diff",
    "dvc metrics diff HEAD~1",
    "dvc plots show --html-template page.html",
    "dvc plots show --show-vega metrics/det.csv",
)
def test_two_commits_are_compared_and_plots_drawn(fresh):
    path = fresh / "metrics/ptq.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "eer": found["eer"] + 0.125}))
    assert re.search(r"metrics/ptq.json +eer .* 0.125\n", shell(fresh, "dvc metrics diff"))
    commit(fresh, "Change")
    printed = shell(fresh, "dvc metrics diff HEAD~1")
    assert len(printed.splitlines()) == 2 and "0.125" in printed
    (block,) = re.findall(r"```html\n(.*?)```", (ROOT / "docs/evaluation.md").read_text(), re.DOTALL)
    (fresh / "page.html").write_text(block)
    assert "dvc_plots/index.html" in shell(fresh, "dvc plots show --html-template page.html")
    page = (fresh / "dvc_plots/index.html").read_text()
    assert 'src="vega.min.js"' in page and "Detection error trade-off" in page and "://cdn" not in page
    plot = json.loads(shell(fresh, "dvc plots show --show-vega metrics/det.csv"))
    with open(fresh / "metrics/det.csv") as file:
        assert len(plot["data"]["values"]) == len(list(csv.DictReader(file)))


@slow
@runs("make repro", ACTIVATE)
def test_the_first_result(made):
    folder, printed = made
    table = [line for line in (folder / "metrics/report.md").read_text().splitlines() if line.startswith("|")]
    assert printed.rstrip().splitlines()[-6:] == table[:6] and table[4].startswith("| INT8 QAT")
    assert (folder / "metrics/report.html").stat().st_size > 10_000
    assert {path.name for path in (folder / "models").glob("*.onnx")} == {"fp32.onnx", "ptq.onnx", "qat.onnx"}
    assert call(folder, "dvc", "status") == "Data and pipelines are up to date.\n"


@slow
@runs(
    "python -m src.verify enrol.wav test.wav",
    "python -m src.verify enrol.wav enrol2.wav test.wav --model models/release/model.onnx --json",
    "python -m src.embed recordings --out embeddings.npz",
)
def test_the_models_are_used(place):
    (place / "recordings").mkdir()
    audio = sorted((place / "data/audio").iterdir())[:3]
    for path, name in zip(audio, ("enrol.wav", "enrol2.wav", "test.wav")):
        soundfile.write(place / name, *soundfile.read(path))
        shutil.copy(place / name, place / "recordings")
    verify, release, embed = (
        "python -m src.verify enrol.wav test.wav",
        "python -m src.verify enrol.wav enrol2.wav test.wav --model models/release/model.onnx --json",
        "python -m src.embed recordings --out embeddings.npz",
    )
    assert "same speaker" in shell(place, verify, statuses=(0, 1))
    found = json.loads(shell(place, release, statuses=(0, 1)))
    assert found["threshold"] == json.loads((place / "models/release/config.json").read_text())["threshold_eer"]
    assert "3 embeddings; 0 skipped" in shell(place, embed) and (place / "embeddings.npz").is_file()


def trial_list(speech, path):
    """A list as VoxCeleb's: of every second speaker two recordings, each against that of the next speaker too."""
    speakers = sorted(folder for folder in speech.iterdir() if folder.is_dir())[::2]
    first, second = (
        [str(sorted(folder.rglob("*.flac"))[index].relative_to(speech)) for folder in speakers] for index in (0, 1)
    )
    pairs = [(1, a, b) for a, b in zip(first, second)] + [(0, a, b) for a, b in zip(first, second[1:] + second[:1])]
    path.write_text("".join(f"{kind} {a} {b}\n" for kind, a, b in pairs))
    return len(pairs)


@slow
@runs(
    "git restore params.yaml",
    "dvc exp run -S data.source=folder -S data.path=/path/to/speech",
    "dvc exp run -S data.source=folder -S data.path=/path/to/voxceleb1 -S data.trials=veri_test2.txt",
    "dvc repro -f -s sample_data",
)
def test_own_recordings(place, shared, tmp_path):
    speech = Path(shutil.copytree(shared / "speech", tmp_path / "speech"))
    shell(place, "dvc exp run -S data.source=folder -S data.path=/path/to/speech", replaced={"/path/to/speech": speech})
    assert metric(place, "baseline")["speakers"] == 6
    with open(place / "data/manifest.csv") as file:
        rows = list(csv.DictReader(file))
    speaker = rows[0]["speaker"]
    shutil.rmtree(speech / speaker)
    shell(place, "dvc repro -f -s sample_data")
    assert f",{speaker}," not in (place / "data/manifest.csv").read_text()
    shell(place, "git restore params.yaml")
    trials = trial_list(speech, tmp_path / "list.txt")
    shutil.copy(tmp_path / "list.txt", place / "veri_test2.small.txt")
    shell(
        place,
        "dvc exp run -S data.source=folder -S data.path=/path/to/voxceleb1 -S data.trials=veri_test2.txt",
        replaced={"/path/to/voxceleb1": speech, "veri_test2.txt": "veri_test2.small.txt"},
    )
    assert metric(place, "ptq")["trials"] == trials


PUBLISHED = "dvc exp run -S encoder.source=speechbrain/spkrec-ecapa-voxceleb -S data.source=hub"


@slow
@runs(PUBLISHED, f"{PUBLISHED} -S evaluate.protocol=superb-si")
def test_the_published_encoder_and_data_set(place, shared):
    hub = (sys.executable, shared / "hub/serve.py", shared / "hub/root", "--")
    shell(place, PUBLISHED, before=hub)
    assert metric(place, "profile")["params_million"] > 20 and metric(place, "qat_search")["size_mb"] < 21
    shell(place, "git restore params.yaml")
    shell(place, f"{PUBLISHED} -S evaluate.protocol=superb-si", before=hub)
    assert "superb-si" in (place / "params.yaml").read_text()
    assert metric(place, "profile")["params_million"] > 20


@slow
@runs(
    "dvc exp run -S qat_search.n_trials=16 -S qat_search.steps=400",
    "dvc exp run -S quantize.weight_bits.mfa=4",
    "dvc exp show",
)
def test_one_experiment_after_another(place):
    before = metric(place, "ptq")["size_mb"]
    printed = shell(
        place,
        "dvc exp run -S qat_search.n_trials=16 -S qat_search.steps=400",
        replaced={"trials=16": "trials=3", "steps=400": "steps=3"},
    )
    assert metric(place, "qat_search")["n_trials"] == 3 and "Running stage 'ptq'" not in printed
    shell(place, "git restore params.yaml")
    shell(place, "dvc exp run -S quantize.weight_bits.mfa=4")
    assert metric(place, "ptq")["size_mb"] < before - 0.1 and metric(place, "qat_search")["n_trials"] == 2
    shown = json.loads(shell(place, "dvc exp show", replaced={"show": "show --json"}))
    assert len(shown[1]["experiments"]) == 2


@slow
@runs(
    "dvc exp run -S ptq.observer=histogram",
    "dvc exp run ptq -S ptq.observer=histogram",
    "dvc metrics diff --targets metrics/ptq_latency.json",
    "dvc plots show",
    "dvc plots diff HEAD~1",
)
def test_an_experiment_beside_the_last_commit(place):
    page = place / "dvc_plots/index.html"
    printed = shell(place, "dvc exp run ptq -S ptq.observer=histogram")
    assert "Running stage 'ptq'" in printed and "qat_search" not in printed
    printed = shell(place, "dvc exp run -S ptq.observer=histogram")
    assert "Running stage 'report'" in printed and "Running stage 'baseline'" not in printed
    printed = shell(place, "dvc metrics diff --targets metrics/ptq_latency.json")
    assert re.search(r"models.ptq.median_ms .*\d", printed)
    for command, revisions in (("dvc plots show", ()), ("dvc plots diff HEAD~1", ("workspace", "HEAD~1"))):
        assert f"file://{page}" in shell(place, command)
        assert "Detection error trade-off" in page.read_text()
        assert all(revision in page.read_text() for revision in revisions)


@slow
@runs(
    "dvc exp run --queue ptq -S 'quantize.weight_bits.mfa=8,4' -S 'ptq.utterances=8,64'",
    "dvc queue start -j 2",
    "dvc queue start",
    "dvc queue status",
    "dvc queue logs NAME -f",
    "make experiments",
    "dvc exp show --only-changed",
    "dvc params diff ratty-user glare-libs",
    "dvc metrics diff ratty-user glare-libs",
    "dvc params diff A B",
    "dvc metrics diff A B",
    "dvc plots diff A B",
    'make compare REVS="A B"',
    "make compare REVS=HEAD~1",
    "make compare",
    "dvc exp apply A",
    "dvc exp remove -A",
)
def test_a_grid_of_experiments_side_by_side(place):
    shell(
        place,
        "dvc exp run --queue ptq -S 'quantize.weight_bits.mfa=8,4' -S 'ptq.utterances=8,64'",
        replaced={"=8,64": "=4,6"},
    )
    shell(place, "dvc queue start -j 2")
    status = until("the end of the queue", lambda: ended(shell(place, "dvc queue status")))
    if "Queued" in status:  # both workers ended on what docs/experiments.md tells of
        shell(place, "dvc queue start")
        status = until("the end of the queue", lambda: ended(shell(place, "dvc queue status")))
    else:
        shell(place, "dvc queue start")  # nothing is left to do
    found = {row["rev"]: row for row in experiments(place)}
    assert len(found) + status.count("Failed") == 4 and len(found) >= 2
    names = {(row["bits"], row["utterances"]): name for name, row in found.items()}
    (_, one), (_, two) = sorted(names.items())[:2]
    assert "Running stage" in shell(place, "dvc queue logs NAME -f", replaced={"NAME": one})

    table = shell(place, "make experiments")
    assert all(f"[{name}]" in table for name in found) and "quantize.weight_bits.mfa" in table and "cllr" not in table
    assert one in shell(place, "dvc exp show --only-changed")
    differs = {"bits": "mfa", "utterances": "ptq.utterances"}
    for example in (False, True):
        pair = {"ratty-user": one, "glare-libs": two} if example else {" A B": f" {one} {two}"}
        names = "ratty-user glare-libs" if example else "A B"
        printed = shell(place, f"dvc params diff {names}", replaced=pair)
        for key, shown in differs.items():
            assert (shown in printed) == (found[one][key] != found[two][key])
        assert "metrics/ptq.json" in shell(place, f"dvc metrics diff {names}", replaced=pair)
    rows = shell(place, 'make compare REVS="A B"', replaced={"A B": f"{one} {two}"}).splitlines()
    assert one in rows[0] and two in rows[0] and "cllr" not in str(rows)
    assert "| HEAD~1 " in shell(place, "make compare REVS=HEAD~1")
    assert len(shell(place, "make compare").strip().splitlines()) == 2  # nothing differs from the last commit
    shell(place, "dvc plots diff A B", replaced={" A B": f" {one} {two}"})
    assert one in (place / "dvc_plots/index.html").read_text()
    shell(place, "dvc exp apply A", replaced={" A": f" {two}"})
    assert metric(place, "ptq")["calibration_utterances"] == found[two]["utterances"]
    shell(place, "dvc exp remove -A")
    assert experiments(place) == []


def ended(status):
    """The table of `dvc queue status`, once no worker is active."""
    return status if "Running" not in status and "Worker status: 0 active" in status else None


def experiments(folder):
    """[{rev, bits, utterances}] of the experiments of the last commit."""
    shown = json.loads(call(folder, "dvc", "exp", "show", "--json"))
    found = []
    for experiment in shown[1]["experiments"] or ():
        params = experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]
        found.append(
            {
                "rev": experiment["name"],
                "bits": params["quantize"]["weight_bits"]["mfa"],
                "utterances": params["ptq"]["utterances"],
            }
        )
    return found


@slow
@runs("make lock")
def test_packages_are_locked_again(fresh):
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    files = [f"requirements{kind}.txt" for kind in ("", "-bench", "-dev", "-pip")]
    before = [re.findall(r"^[\w.-]+==\S+", (fresh / name).read_text(), re.MULTILINE) for name in files]
    shell(fresh, "make lock")
    assert before == [re.findall(r"^[\w.-]+==\S+", (fresh / name).read_text(), re.MULTILINE) for name in files]


class Hub(BaseHTTPRequestHandler):
    """What `hf upload` calls: create a repository, check the card, ask how to send a file, send it, commit."""

    def log_message(self, *_):
        pass

    def answer(self, **content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_PUT(self):
        content = self.body()
        assert self.path == f"/store/{hashlib.sha256(content).hexdigest()}"
        self.server.stored[self.path.removeprefix("/store/")] = content
        self.answer()

    def do_POST(self):
        body, path, here = self.body(), self.path, f"http://{self.headers['Host']}"
        if self.headers["Authorization"] != "Bearer hf_of_the_test":
            return self.send_error(401)
        if path == "/api/repos/create":
            self.answer(url=f"{here}/someone/speaker")
        elif path == "/api/validate-yaml":
            self.server.card = json.loads(body)["content"]
            self.answer(errors=[], warnings=[])
        elif path == "/api/models/someone/speaker/preupload/main":
            self.answer(
                files=[
                    {
                        "path": file["path"],
                        "shouldIgnore": False,
                        "uploadMode": "lfs" if file["path"].endswith(".onnx") else "regular",
                    }
                    for file in json.loads(body)["files"]
                ]
            )
        elif path == "/someone/speaker.git/info/lfs/objects/batch":
            self.answer(
                transfer="basic",
                objects=[
                    {**wanted, "actions": {"upload": {"href": f"{here}/store/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ],
            )
        elif path == "/api/models/someone/speaker/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[line["value"]["path"]] = self.server.stored[line["value"]["oid"]]
            self.answer(commitUrl=f"{here}/someone/speaker/commit/{'0' * 40}", commitOid="0" * 40)
        else:
            self.send_error(404)


@slow
@runs("hf upload <owner>/<name> models/release")
def test_the_release_is_uploaded(place):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.stored, server.files, server.card = {}, {}, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HUB_DISABLE_XET": "1"}
    target = {"<owner>/<name>": "someone/speaker"}
    try:
        refused = shell(place, "hf upload <owner>/<name> models/release", replaced=target, statuses=(1,), **env)
        assert "401" in refused and server.files == {}
        shell(place, "hf upload <owner>/<name> models/release", replaced=target, HF_TOKEN="hf_of_the_test", **env)
    finally:
        server.shutdown()
        server.server_close()
    assert server.files == {path.name: path.read_bytes() for path in (place / "models/release").iterdir()}
    assert "model.onnx" in server.files and server.card == server.files["README.md"].decode()


@slow
@runs("dvc repro -f -s pretrain")
def test_the_encoder_is_trained_again(place):
    change_parameters(place, {"pretrain": {"speakers": 8, "utterances_per_speaker": 4, "epochs": 1}})
    text = (place / "dvc.yaml").read_text()
    (place / "dvc.yaml").write_text(text.replace("    frozen: true\n", ""))
    shell(place, "dvc repro -f -s pretrain")
    assert "models/pretrained/ecapa-mini/embedding_model.ckpt" in call(place, "git", "status", "--porcelain")


@slow
@runs("python -m pytest -m slow tests/test_fuzz.py")
def test_the_tests_of_what_is_trusted(fresh):
    """One of them; the others are slow tests beside this one."""
    printed = shell(fresh, "python -m pytest -m slow tests/test_fuzz.py", PYTEST_ADDOPTS="-n 0 -k trial_list")
    assert re.search(r"\d passed", printed)


@slow
@runs("python -m bench.account models/ptq.onnx")
def test_where_the_time_goes(place):
    printed = shell(place, "python -m bench.account models/ptq.onnx")
    assert "| convolutions | 31 |" in printed and "Integer convolutions: 0.234 GMACs in" in printed


@slow
@runs("make bench", 'make bench BENCH="--threads 1 --seconds 3 --batch 1 --skip-growth"', "python -m bench --help")
def test_the_benchmark(place):
    missing = [name for name in ("openvino", "nncf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make bench installs requirements-bench.txt")
    assert "--skip-growth" in shell(place, "python -m bench --help")
    small = 'make bench BENCH="--threads 1 --seconds 3 --batch 1 --skip-growth"'
    assert "1 thread, 3 s, batch 1" in shell(place, small)
    results = json.loads((place / "bench/results.json").read_text())
    assert "growth" not in results and len(results["settings"]) == 1
    shell(place, "make bench", BENCH="--rounds 3 --budget 1")
    assert "growth" in json.loads((place / "bench/results.json").read_text())


def environment(folder, *installs):
    """The `bin` of a new environment in which commands of the documents installed something; skips without an index."""
    RAN.update(installs)
    call(folder, sys.executable, "-m", "venv", "environment")
    program = folder / "environment/bin"
    for install in installs:
        done = subprocess.run([program / "python", "-m", *install.split()], cwd=folder, capture_output=True, text=True)
        if done.returncode and re.search("NewConnectionError|No matching distribution|Temporary failure", done.stderr):
            pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    return program


@contextmanager
def dashboard(folder, program, command, **env):
    """The studies that a dashboard shows, asked over HTTP."""
    port = free_port()
    RAN.add(command)
    env = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}", **env}
    with (
        served(
            ["bash", "-c", f"exec {command} --port {port}"], f"http://127.0.0.1:{port}/api/studies", cwd=folder, env=env
        ) as url,
        urllib.request.urlopen(url) as answer,
    ):
        yield json.load(answer)["study_summaries"]


@slow
@runs(
    "pip install optuna-dashboard",
    "pip install psycopg2-binary",
    "optuna-dashboard .optuna/*.log",
    "createdb -h db.example.org -U me search",
    "python -m src.qat_search --worker",
    "dvc repro",
    "dvc repro sample_data",
    "optuna-dashboard postgresql+psycopg2://me@db.example.org/search",
    "optuna delete-study --storage URL --study-name NAME",
)
def test_a_search_on_many_machines_and_its_dashboard(place, server, tmp_path):
    program = environment(tmp_path, "pip install optuna-dashboard", "pip install psycopg2-binary")
    change_parameters(place, {"qat_search": {"n_trials": 50}})
    search = subprocess.Popen([sys.executable, "-m", "src.qat_search"], cwd=place, stdout=subprocess.DEVNULL)
    try:
        until(
            "a finished trial",
            lambda: any(path.read_text().count('"state":1') for path in place.glob(".optuna/*.log")),
            search,
        )
        with dashboard(place, program, "optuna-dashboard .optuna/*.log") as studies:
            (found,) = studies
            assert f".optuna/{found['study_name']}.log" in map(
                str, (path.relative_to(place) for path in place.glob(".optuna/*.log"))
            )
    finally:
        search.kill()
        search.wait()

    # The server is here: libpq takes its address and port from the environment, and the commands stay as they are.
    env = {"PGHOSTADDR": "127.0.0.1", "PGPORT": server.split(":")[-1].split("/")[0], "PGPASSWORD": PASSWORD}
    shell(place, "createdb -h db.example.org -U me search", **env)
    change_parameters(place, {"qat_search": {"n_trials": 3, "storage": "postgresql://me@db.example.org/search"}})
    other = Path(shutil.copytree(place, tmp_path / "other", symlinks=True))
    shell(other, "dvc repro sample_data")
    command, environ = prepare(other, ["python -m src.qat_search --worker"], {}, env)
    worker = subprocess.Popen(command, cwd=other, env=os.environ | environ, stdout=subprocess.PIPE, text=True)
    try:
        printed = shell(place, "dvc repro", **env)
        assert worker.wait(WAIT) == 0
    finally:
        worker.kill()
    (name,) = set(re.findall(r"^study (\S+)$", printed, re.MULTILINE))
    assert name in worker.stdout.read() and metric(place, "qat_search")["n_trials"] == 3
    with dashboard(place, program, "optuna-dashboard postgresql+psycopg2://me@db.example.org/search", **env) as studies:
        assert [found["study_name"] for found in studies] == [name]
    url = "postgresql+psycopg2://me@db.example.org/search"
    delete = "optuna delete-study --storage URL --study-name NAME"
    shell(place, delete, replaced={"URL": url, "NAME": name}, **env)
    again = shell(place, delete, replaced={"URL": url, "NAME": name}, statuses=(1,), **env)
    assert "Record does not exist" in again


@slow
@runs(
    "dvc remote add --default storage /mnt/team/speaker",
    "dvc push",
    "dvc pull",
    "dvc pull && dvc repro",
    "dvc repro --pull",
)
def test_a_remote_on_a_folder(place, tmp_path):
    shell(
        place, "dvc remote add --default storage /mnt/team/speaker", replaced={"/mnt/team/speaker": tmp_path / "team"}
    )
    commit(place, "Remote")
    shell(place, "dvc push")
    others_run_nothing(place, tmp_path)


@slow
@runs(
    "dvc remote add --default storage s3://bucket/path",
    "dvc remote modify storage endpointurl https://storage.example.org",
    "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...",
)
def test_a_remote_on_s3(place, tmp_path):
    missing = [name for name in ("dvc_s3", "moto", "flask_cors", "boto3") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -r requirements-dev.txt")
    with s3_server() as endpoint:
        env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        make_bucket = "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1]).create_bucket(Bucket='bucket')"
        call(tmp_path, sys.executable, "-c", make_bucket, endpoint, **env)
        shell(
            place,
            "dvc remote add --default storage s3://bucket/path",
            "dvc remote modify storage endpointurl https://storage.example.org",
            "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...",
            "dvc push",
            replaced={"https://storage.example.org": endpoint, "...": "test"},
            AWS_DEFAULT_REGION="us-east-1",
        )
        commit(place, "Remote")
        others_run_nothing(place, tmp_path, **env)


def others_run_nothing(place, tmp_path, **env):
    for number, command in enumerate(("dvc pull && dvc repro", "dvc repro --pull", "dvc pull")):
        other = tmp_path / f"other{number}"
        clone(place, other)
        shutil.copytree(place / ".venv", other / ".venv", symlinks=True)
        assert "Running stage" not in shell(other, command, **env)
        assert (other / "models/qat.onnx").read_bytes() == (place / "models/qat.onnx").read_bytes()
        assert call(other, "git", "status", "--porcelain") == ""


@slow
@runs("pip install -r requirements-dev.txt")
def test_what_a_remote_on_s3_needs_is_installed(fresh):
    program = environment(fresh, "pip install -r requirements-dev.txt")
    call(fresh, program / "python", "-c", "import boto3, dvc_s3, flask_cors, moto, vl_convert")
