"""The stages beside a hub that fails: the real clients, and the stand-in with faults put into its answers."""

import contextlib
import csv
import importlib.util
import json
import re
import socket
import struct
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.workspace import SMALL, run, workspace

ENCODER, DATA = "speechbrain/spkrec-ecapa-voxceleb", "s3prl/superb"
CHANGES = {
    **SMALL,
    "data": {"source": "hub", "speakers": 8, "utterances_per_speaker": 3, "max_seconds": 3.0},
    "encoder": {"source": ENCODER},
}
# What the stages ask for. The first six requests for parquet are of its ends and of the speakers' columns.
LABELS = "label_encoder.txt"
API, README, TREE = "GET /api/datasets/s3prl/superb$", "README.md", "/tree/"
AUDIO = "GET .*parquet"
ALWAYS = 10**9


class Hub:
    """The stand-in served from `root`, on loopback. `fail` puts faults into its answers; `asked` is what it was asked.

    A fault is 500; `silent`: never an answer; `cut`: half of the body, then the end; `reset`: the same, ended by a
    reset; `stalled`: half of the body, then nothing; `garbage`: an answer that means nothing; `dead`: the connection is closed, this time and ever after, without an answer.
    """

    def __init__(self, stand_in, root):
        self.faults, self.asked, self.lock, self.over = [], [], threading.Lock(), threading.Event()
        hub = self

        class Handler(stand_in.Handler):
            def handle_one_request(self):
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self):
                self.faulty(super().do_GET)

            def do_HEAD(self):
                self.faulty(super().do_GET)

            def do_POST(self):
                self.faulty(super().do_POST)

            def faulty(self, answer):
                kind = hub.fault(f"{self.command} {self.path}")
                self.body = None
                if kind in (500, "garbage"):
                    self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if kind == 500:
                    self.reply(500, b"{}")
                elif kind == "garbage":
                    self.reply(200, b"<html>Log in first</html>")
                elif kind in ("silent", "dead"):
                    if kind == "silent":
                        hub.over.wait(60)
                    self.close_connection = True
                else:
                    self.kind = kind
                    answer()

            def end_headers(self):
                super().end_headers()
                if getattr(self, "kind", None) and self.command != "HEAD":
                    self.wfile.flush()
                    self.wfile = Failing(self.wfile, self.connection, self.kind, hub.over)
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.handle_error = True, lambda *_: None
        self.server.root, self.server.served, self.server.requests = Path(root), 0, 0
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fail(self, kind, pattern, after=0, times=ALWAYS):
        """Put the fault into the answers to what matches, `after` the first ones, so many times."""
        self.faults.append([kind, re.compile(pattern), after, times])

    def fault(self, request):
        with self.lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault[1].search(request):
                    if fault[2]:
                        fault[2] -= 1
                    elif fault[3]:
                        fault[3] -= 1
                        if fault[0] == "dead":
                            self.faults = [["dead", re.compile(""), 0, ALWAYS]]
                        return fault[0]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


class Failing:
    """Takes the body of an answer and sends it as the fault says."""

    def __init__(self, file, connection, kind, over):
        self.file, self.connection, self.kind, self.over = file, connection, kind, over

    def write(self, body):
        self.file.write(body[: len(body) // 2])
        if self.kind == "stalled":
            self.over.wait(60)
        if self.kind == "reset":
            time.sleep(0.2)  # what was sent is read first; a reset would take it back
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.fixture(scope="module")
def stand_in(shared):
    spec = importlib.util.spec_from_file_location("stand_in", shared / "hub/serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(stand_in, shared):
    with Hub(stand_in, shared / "hub/root") as hub:
        yield hub


def ask(folder, hub):
    """Run `sample_data` beside the hub, with two seconds of patience; the clients' cache is in the folder."""
    return run(
        folder,
        "sample_data",
        HF_ENDPOINT=hub.url,
        HF_HOME=str(folder / "cache"),
        HF_HUB_DOWNLOAD_TIMEOUT="2",
        HF_HUB_DISABLE_XET="1",
        OMP_NUM_THREADS="1",
    )


def check_nothing_half_written(folder, hub):
    """What is in the cache and in the lock is whole."""
    assert not list((folder / "cache").rglob("*.incomplete"))
    for path in (folder / "cache").rglob("snapshots/*/*"):
        kind, owner, name = path.parts[-4].split("--")
        assert path.read_bytes() == (hub.server.root / kind / owner / name / path.name).read_bytes()
    assert not list(folder.rglob("*.partial"))
    if (folder / "hub.lock.json").exists():
        for entry in json.loads((folder / "hub.lock.json").read_text()).values():
            assert len(entry["commit"]) == 40 and {len(digest) for digest in entry["files"].values()} == {64}


def check_sampled(folder):
    with open(folder / "data/manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 == len(list((folder / "data/audio").iterdir()))


def fails(folder, hub, what):
    """The message of `sample_data`, after the checks that it is one line, and that the stage left nothing."""
    done = ask(folder, hub)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: {what}")
    assert not (folder / "data").exists() or not list((folder / "data").iterdir())
    check_nothing_half_written(folder, hub)
    return message


@pytest.mark.slow
def test_faults_that_pass_are_survived(hub, tmp_path):
    folder = workspace(tmp_path / "run", CHANGES)
    for fault in (
        (500, f"HEAD .*{LABELS}", 0, 2),
        ("cut", f"GET .*{LABELS}", 0, 1),
        ("stalled", f"GET .*{README}", 0, 1),
        ("cut", TREE, 0, 1),
        ("reset", AUDIO, 0, 1),
        (500, AUDIO, 3, 2),
        ("silent", AUDIO, 9, 1),
    ):
        hub.fail(*fault)
    done = ask(folder, hub)
    assert done.returncode == 0, done.stderr
    assert [times for *_, times in hub.faults] == [0] * len(hub.faults)  # each was met with
    check_sampled(folder)
    check_nothing_half_written(folder, hub)


def test_a_hub_that_answers_nonsense_is_one_line_and_a_run_after_it_completes(hub, tmp_path):
    folder = workspace(tmp_path / "run", CHANGES)
    hub.fail("garbage", TREE)
    message = fails(folder, hub, f"data.repo: {DATA}")
    assert re.search("not understood|Expecting value", message), message
    hub.faults.clear()
    done = ask(folder, hub)
    assert done.returncode == 0, done.stderr
    check_nothing_half_written(folder, hub)
    check_sampled(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, pattern, said",
    [
        (500, f"HEAD .*{LABELS}", "500 Internal Server Error"),
        ("stalled", f"GET .*{LABELS}", "timed out"),
        ("silent", API, "timed out"),
        ("dead", f"GET .*{README}", "disconnected"),
        ("reset", AUDIO, "reset by peer"),
    ],
)
def test_what_does_not_pass_is_one_line_and_leaves_nothing(hub, tmp_path, kind, pattern, said):
    folder = workspace(tmp_path / "run", CHANGES)
    hub.fail(kind, pattern)
    message = fails(folder, hub, f"encoder.source: {ENCODER}" if LABELS in pattern else f"data.repo: {DATA}")
    assert re.search(said, message), message
