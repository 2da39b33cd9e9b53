"""Paired timing: order, statistics, and that it can tell a slow model from a fast one."""

import functools
import json
import time

import numpy as np
import pytest
import torch

from src.cost import latency
from src.cost.latency import Turns
from src.runtime import engine
from tests.evaluate.conftest import save_model


def test_rounds_rotate_the_order_and_a_turn_lasts_until_a_model_has_settled():
    ran = []

    def call(name, seconds):
        ran.append(name)
        time.sleep(seconds)

    slow, fast = latency.SETTLE, latency.SETTLE / 2
    calls = {
        name: functools.partial(call, name, seconds) for name, seconds in {"a": slow, "b": fast, "c": slow}.items()
    }
    times = latency.interleave(calls, 4)
    rounds = "".join(ran)[latency.WARM_UP * 3 :]
    assert rounds == "aabbbccbbbccaaccaabbbaabbbcc"
    for name, least in {"a": slow, "b": fast, "c": slow}.items():
        assert all(len(seconds) == 4 and (seconds >= least).all() for seconds in times[name])


def test_speedup_is_paired():
    # Each round is slowed down by another factor, for both; only the ratio within a round is constant.
    slowdown = np.array([1.0, 5.0, 2.0, 9.0, 3.0])
    slow, fast = Turns(0.04 * slowdown, 0.04 * slowdown), Turns(0.02 * slowdown, 0.01 * slowdown)
    summary = latency.summarise({"slow": slow, "fast": fast}, "slow")
    assert summary["fast"]["speedup"] == pytest.approx(4)
    assert summary["fast"]["speedup_ci"] == pytest.approx({"low": 4, "high": 4})
    assert summary["slow"]["speedup"] == 1
    assert summary["fast"]["median_ms"] == pytest.approx(30)
    assert (summary["fast"]["low_ms"], summary["fast"]["high_ms"]) == pytest.approx((20, 50))
    assert (summary["fast"]["first_ms"], summary["fast"]["first_speedup"]) == pytest.approx((60, 2))


def test_speedup_is_the_median_of_the_ratios():
    """Neither the ratio of the medians, 3, nor the mean of the ratios, 5.3."""
    slow, fast = np.array([4.0, 6.0, 20.0]), np.array([1.0, 3.0, 2.0])
    times = {"slow": Turns(slow, slow), "fast": Turns(slow, fast)}
    assert latency.summarise(times, "slow")["fast"]["speedup"] == 4


def test_interval_of_the_speedup():
    rng = np.random.default_rng(0)
    times = {"slow": Turns(*rng.lognormal(0.7, 0.2, (2, 200))), "fast": Turns(*rng.lognormal(0, 0.2, (2, 200)))}
    summary = latency.summarise(times, "slow", seed=3)
    ci = summary["fast"]["speedup_ci"]
    assert ci["low"] < summary["fast"]["speedup"] < ci["high"]
    assert 0.01 < ci["high"] - ci["low"] < 0.5
    assert summary == latency.summarise(times, "slow", seed=3)


def test_measure_tells_more_work_from_less():
    values = np.random.default_rng(0).standard_normal(5000)  # sorting is on one thread, whatever BLAS does
    seen, threads = [], torch.get_num_threads()

    def work(times):
        def run(waveform):
            seen.append((waveform.shape, waveform.dtype, torch.get_num_threads()))
            for _ in range(times):
                np.sort(values)

        return run

    result = latency.measure({"more": work(300), "less": work(3)}, seconds=0.5, rounds=7, threads=threads + 1)
    assert result["models"]["less"]["speedup"] > 2
    assert result["reference"] == "more" and result["models"]["more"]["speedup"] == 1
    assert set(seen) == {((1, 8000), np.dtype("float32"), threads + 1)}
    assert torch.get_num_threads() == threads
    assert json.loads(json.dumps(result)) == result
    assert result["cpu"]["model"] and {"torch", "onnxruntime"} <= set(result["versions"])


def test_models_get_and_give_arrays(tmp_path):
    save_model(tmp_path / "model.onnx")
    waveform = np.random.default_rng(0).normal(size=(1, 400)).astype(np.float32)
    expected = engine.embedding(engine.session(tmp_path / "model.onnx"), waveform[0])
    assert latency.onnx_file(tmp_path / "model.onnx", 1)(waveform)[0] == pytest.approx(expected, rel=1e-5)
