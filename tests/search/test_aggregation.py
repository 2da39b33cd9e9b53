from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.encoder.networks import rewrite
from src.search import aggregation
from tests.encoder.helpers import random_ecapa
from tests.search.conftest import WIDE


@pytest.fixture(scope="module")
def measured(wide, calibration):
    return aggregation.measure(wide, calibration)


def distance(network, other, features):
    with torch.no_grad():
        return np.mean([(F.normalize(network(x)) - F.normalize(other(x))).square().sum().item() for x in features])


def test_all_channels_change_nothing_and_fewer_are_fewer_everywhere(wide, calibration, measured):
    same, error = aggregation.reduce(wide, measured, wide.mfa.out_channels)
    assert error == 0 and distance(same, wide, calibration) == 0
    reduced, error = aggregation.reduce(wide, measured, 48)
    assert error > 0 and wide.mfa.out_channels == 96
    assert reduced.mfa.out_channels == reduced.attention.x.in_channels == reduced.attention.out.out_channels == 48
    assert reduced.attention.context.in_features == reduced.fc.in_features == 96


def test_pooling_without_global_context(calibration):
    network = rewrite(random_ecapa({**WIDE, "global_context": False})).requires_grad_(False)
    reduced, error = aggregation.reduce(network, aggregation.measure(network, calibration), 48)
    assert error > 0 and reduced.attention.context is None and reduced.attention.x.in_channels == 48
    assert 0 < distance(reduced, network, calibration) < 1


def test_channels_that_nothing_reads_are_dropped_for_free(wide, calibration):
    with torch.no_grad():
        network = aggregation.reduce(wide, aggregation.measure(wide, calibration), 96)[0]
        network.fc.weight[:, 5] = network.fc.weight[:, 96 + 5] = 0
        network.attention.x.weight[:, 5] = 0
        network.attention.context.weight[:, 5] = network.attention.context.weight[:, 96 + 5] = 0
    measured = aggregation.measure(network, calibration)
    place = measured.order.tolist().index(5)  # after it are those that the ReLU always cuts
    reduced, _ = aggregation.reduce(network, measured, place)
    assert distance(reduced, network, calibration) < 1e-6


def test_the_regression_makes_up_for_what_is_dropped(wide, calibration, measured, monkeypatch):
    fitted, _ = aggregation.reduce(wide, measured, 64)
    monkeypatch.setattr(aggregation, "RIDGES", (1e9,))  # nothing but the mean is made up for
    unlike = replace(measured.frames, covariance=measured.frames.covariance.diag().diag())
    plain, _ = aggregation.reduce(wide, replace(measured, frames=unlike), 64)
    assert distance(fitted, wide, calibration) < 0.7 * distance(plain, wide, calibration)


def test_ridge_regression_and_its_leave_one_out_error_against_their_definition(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, 14, generator=rng, dtype=torch.float64)
    outputs = torch.randn(9, 3, generator=rng, dtype=torch.float64) + inputs[:, :3]
    monkeypatch.setattr(aggregation, "RIDGES", (0.5,))
    weight, bias, optimism = aggregation._ridge_regression(inputs, outputs)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0) / 14**0.5
    target = outputs.mean(0)
    expected = torch.linalg.solve(scaled.T @ scaled + 0.5 * torch.eye(14), scaled.T @ (outputs - target))
    torch.testing.assert_close(inputs @ weight.T + bias, scaled @ expected + target)
    left_out = []
    for i in range(9):
        rest = [j for j in range(9) if j != i]
        centre, mean = scaled[rest].mean(0), outputs[rest].mean(0)
        centred = scaled[rest] - centre
        own = torch.linalg.solve(centred.T @ centred + 0.5 * torch.eye(14), centred.T @ (outputs[rest] - mean))
        left_out.append(((scaled[i] - centre) @ own + mean - outputs[i]).square().sum().item())
    fitted = (inputs @ weight.T + bias - outputs).square().sum(1).mean().item()
    assert optimism == pytest.approx(np.mean(left_out) - fitted)


def test_channels_by_what_they_do_to_the_embedding(measured, wide):
    pooled = measured.pooled - measured.pooled.mean(0)
    weights = wide.fc.weight.double()
    importance = [(pooled[:, [c, c + 96]] @ weights[:, [c, c + 96]].T).square().sum(1).mean().item() for c in range(96)]
    assert np.array(importance)[measured.order] == pytest.approx(sorted(importance, reverse=True))
    assert measured.largest(3).tolist() == sorted(measured.order[:3].tolist())
