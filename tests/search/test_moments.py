import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf

from src.search import moments


def outputs(network, name, features):
    frames = []
    hook = network.get_submodule(name).register_forward_hook(lambda *args: frames.append(args[2][0, :, 0].T))
    for utterance in features:
        network(utterance)
    hook.remove()
    return torch.cat(frames).detach().double().numpy()


def test_mean_and_covariance_are_those_of_the_outputs(wide, calibration):
    measured = moments.measure(wide, calibration)
    assert {"layer0", "mfa", "blocks.1.tdnn1", "blocks.2.res2net.1", "attention.x"} <= set(measured)
    values = outputs(wide, "mfa", calibration)
    scale = values.std(0).max()
    np.testing.assert_allclose(measured["mfa"].mean, values.mean(0), atol=1e-4 * scale)
    np.testing.assert_allclose(measured["mfa"].covariance, np.cov(values.T, bias=True), atol=1e-3 * scale**2)


def test_sensitivity_predicts_how_far_noise_in_a_layer_moves_the_embedding(wide, calibration):
    """By really adding noise, of which every frame has its own, to the layer's outputs."""
    sensitivity = moments.measure(wide, calibration * 20)["mfa"].sensitivity
    wide, calibration = copy.deepcopy(wide).double(), [one.double() for one in calibration]
    values = outputs(wide, "mfa", calibration)
    channels = torch.arange(wide.mfa.out_channels)
    random = torch.Generator().manual_seed(1)
    for part in (channels[:30], channels[-30:]):
        deviation = 1e-6 * float(values.std())
        moved = []

        def noisy(_, __, output, part=part, deviation=deviation):
            noise = torch.zeros_like(output)
            noise[:, part] = deviation * torch.randn(len(part), *output.shape[2:], generator=random, dtype=output.dtype)
            return output + noise

        for utterance in calibration:
            clean = F.normalize(wide(utterance), dim=-1)
            hook = wide.mfa.register_forward_hook(noisy)
            moved += [(F.normalize(wide(utterance), dim=-1) - clean).square().sum().item() for _ in range(30)]
            hook.remove()
        predicted = deviation**2 * sensitivity[part, part].sum().item()
        assert np.mean(moved) == pytest.approx(predicted, rel=0.3)


def test_some_channels_alone_and_thin_layers_left_out(wide, calibration):
    measured = moments.measure(wide, calibration[:2])
    channels = torch.tensor([3, 1])
    part = measured["mfa"].of(channels)
    assert part.mean.tolist() == measured["mfa"].mean[channels].tolist()
    assert part.covariance[0, 1] == measured["mfa"].covariance[3, 1] and part.sensitivity.shape == (2, 2)
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 64, 1), torch.nn.Conv2d(64, 64, 1, groups=2))
    assert not moments.layers(network)
    assert moments.layers(
        torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 4), "other": torch.nn.Linear(4, 4)})
    ).keys() == {"other"}


def test_linear_layers_are_measured_on_inputs_that_are_shrunk_towards_independence(wide, calibration):
    measured = moments.measure(wide, calibration)["attention.context"]
    inputs = []
    hook = wide.attention.context.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0, 0]))
    for utterance in calibration:
        wide(utterance)
    hook.remove()
    values, weight = torch.stack(inputs).double().numpy(), wide.attention.context.weight.double().numpy()
    weight, values = weight[:, values.std(0) > 0], values[:, values.std(0) > 0]
    scale = values.std(0)
    scaled = (values - values.mean(0)) / scale
    shrunk, shrinkage = ledoit_wolf(scaled, assume_centered=True)
    assert 0.05 < shrinkage < 0.95
    expected = (weight * scale) @ shrunk @ (weight * scale).T
    np.testing.assert_allclose(measured.covariance, expected, atol=0.01 * expected.max())


def test_the_same_again(wide, calibration):
    first, second = (moments.measure(wide, calibration[:3]) for _ in range(2))
    assert all(torch.equal(first[name].sensitivity, second[name].sensitivity) for name in first)
