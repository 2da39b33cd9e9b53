"""A stage beside a hub that fails: one line, after the retries of the real clients, and nothing half-written."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.workspace import run, workspace


def error(request):
    request.send_error(500)


def nonsense(request):
    body = b"<html>Log in first</html>"
    request.send_response(200)
    request.send_header("Content-Length", len(body))
    request.end_headers()
    request.wfile.write(body)


def silence(request):
    request.server.over.wait(60)


def cut(request):
    request.send_response(200)
    request.send_header("Content-Length", 1000)
    request.end_headers()
    request.wfile.write(b"half")


@pytest.fixture
def hub():
    """A hub on this machine whose every answer is what `hub.answer` does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.answer(self)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.over = True, threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("encoder", "answer", "message"),
    [
        (True, nonsense, "failed: "),
        (False, silence, "timed out"),
        (False, cut, "closed|incomplete"),
        pytest.param(True, error, "500", marks=pytest.mark.slow),
    ],
)
def test_a_failing_hub_is_one_line_and_leaves_nothing(hub, tmp_path, encoder, answer, message):
    hub.answer = answer
    sources = {"data": {"source": "hub"}, "encoder": {"source": "speechbrain/spkrec-ecapa-voxceleb"}}
    folder = workspace(tmp_path, sources if encoder else {"data": sources["data"]})
    output = run(
        folder,
        "sample_data",
        HF_ENDPOINT=f"http://127.0.0.1:{hub.server_address[1]}",
        HF_HOME=str(tmp_path / "cache"),
        HF_HUB_DOWNLOAD_TIMEOUT="1",
    )
    assert output.returncode == 1 and "Traceback" not in output.stderr, output.stderr
    (line,) = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {'encoder.source: speechbrain/' if encoder else 'data.repo: s3prl/superb'}")
    assert any(word in line for word in message.split("|")), line
    assert not (folder / "data").exists() or not list((folder / "data").iterdir())
    assert not (folder / "hub.lock.json").exists() and not list((tmp_path / "cache").rglob("*.incomplete"))
