"""Extraction by a real Dask scheduler and workers, each a process of its own."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src import embed
from src.evaluate import cluster, extract, store
from src.evaluate.evaluation import evaluate
from src.evaluate.extract import embeddings
from src.runtime.audio import waveform
from src.runtime.errors import InputError
from tests.evaluate.slow import slow_waveform
from tests.evaluate.test_accuracy import CONFIG
from tests.workspace import ROOT, free_port

pytest.importorskip("distributed")


@contextlib.contextmanager
def process(module, *arguments, **options):
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **{"env": os.environ | environment, **options},
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def worker(address, **options):
    return process("dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", **options)


@pytest.fixture(scope="module")
def scheduler():
    address = f"tcp://127.0.0.1:{free_port()}"
    with process("dask_scheduler", "--host", address, "--no-dashboard"):
        yield address


@pytest.fixture(scope="module")
def workers(scheduler, tmp_path_factory):
    """Two worker processes, by address; they run in another folder than the tests."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(worker(scheduler, cwd=tmp_path_factory.mktemp("worker"))) for _ in range(2)]
        with cluster.connected(scheduler) as client:
            client.wait_for_workers(2, timeout=60)
        yield running


@pytest.fixture
def paths(project):
    """Recordings in the folder speech, beside the models of `project`."""
    os.mkdir("speech")
    for number in range(24):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 8000 + 100 * number)
        soundfile.write(f"speech/{number:02}.wav", noise, 16_000)
    return [f"speech/{number:02}.wav" for number in range(24)]


def values(results):
    by_number = dict(results)
    return np.stack([by_number[number].values for number in range(len(by_number))])


def test_a_worker_that_is_killed_loses_nothing(paths, scheduler, workers):
    with store.opened(extract.STORES / "alone.jsonl", {}) as done:
        expected = values(embeddings("a.onnx", paths, waveform, done))
    with (
        worker(scheduler) as victim,
        store.opened(extract.STORES / "cluster.jsonl", {}) as done,
        cluster.connected(scheduler) as client,
    ):
        client.wait_for_workers(3, timeout=60)
        running = embeddings("a.onnx", paths, slow_waveform, done, client=client)
        results = dict([next(running)])
        address = next(address for address, pid in client.run(os.getpid).items() if pid == victim.pid)
        assert client.processing()[address]  # it has work that it has not done
        victim.send_signal(signal.SIGKILL)
        results |= running
        assert address not in client.scheduler_info()["workers"]
    assert sorted(results) == list(range(len(paths)))
    np.testing.assert_array_equal(values(results.items()), expected)
    with store.opened(extract.STORES / "cluster.jsonl", {}) as done:
        assert len(done) == len(paths)


def test_embed_and_the_stages_get_the_same_bytes_from_workers(project, paths, scheduler, workers):
    embed.embed("speech", "alone.npz", "a.onnx")
    embed.embed("speech", "workers.npz", "a.onnx", scheduler=scheduler)
    assert Path("alone.npz").read_bytes() == Path("workers.npz").read_bytes()
    alone = evaluate("a.onnx", "alone", project, CONFIG)
    assert evaluate("a.onnx", "workers", project, CONFIG.model_copy(update={"scheduler": scheduler})) == alone
    assert Path("metrics/scores/alone.csv").read_bytes() == Path("metrics/scores/workers.csv").read_bytes()
    assert os.listdir(extract.STORES) == []


def test_only_what_is_not_done_goes_to_workers_and_faults_are_reasons(paths, scheduler, workers, capsys):
    paths = paths[:6]
    with store.opened(extract.STORES / "a.jsonl", {}) as done, cluster.connected(scheduler) as client:
        dict(embeddings("a.onnx", paths[:4], waveform, done))
        for name in paths[4:]:
            os.truncate(name, 0)
        results = dict(embeddings("a.onnx", paths, waveform, done, client=client))
    assert [results[number] for number in (4, 5)] == ["empty", "empty"]
    assert "4 of 6 were done before" in capsys.readouterr().err


def test_another_model_at_the_workers_is_refused(paths, scheduler, workers):
    job = extract._Job(
        os.path.abspath("b.onnx"), extract.sha256("a.onnx"), extract.onnxruntime.__version__, waveform, None
    )
    with cluster.connected(scheduler) as client, pytest.raises(InputError, match="b.onnx: is another model here"):
        list(cluster.run(client, job, paths[:1]))


def test_workers_outside_of_a_checkout_are_explained(tmp_path, paths):
    address = f"tcp://127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (
        process("dask_scheduler", "--host", address, "--no-dashboard"),
        worker(address, cwd=tmp_path, env=environment),
        cluster.connected(address) as client,
        pytest.raises(InputError, match="start workers in a checkout of this commit"),
    ):
        client.wait_for_workers(1, timeout=60)
        list(cluster.run(client, waveform, paths[:1]))


def test_a_scheduler_that_is_lost_is_one_line(paths):
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        process("dask_scheduler", "--host", address, "--no-dashboard") as lost,
        worker(address),
        cluster.connected(address) as client,
        pytest.raises(InputError, match="scheduler: lost"),
    ):
        client.wait_for_workers(1, timeout=60)
        for _ in cluster.run(client, slow_waveform, paths):
            lost.kill()


def test_dask_on_this_machine_needs_no_set_up():
    with cluster.connected(cluster.LOCAL) as client:
        counts = Counter(dict(cluster.run(client, functools.partial(os.path.join, "a"), ["b", "c"])).values())
    assert counts == Counter(["a/b", "a/c"])
