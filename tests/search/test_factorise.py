import copy

import pytest
import torch

from src.search import factorise, moments
from src.search.moments import Moments
from tests.search.test_moments import outputs


@pytest.fixture(scope="module")
def measured(wide, calibration):
    return moments.measure(wide, calibration)


def test_projection_loses_what_it_says_in_the_metric_of_the_embedding(wide, calibration, measured):
    rank = 32
    spectrum = factorise.spectrum(measured["mfa"], wide.mfa.in_channels)
    thin = copy.deepcopy(wide)
    thin.mfa = factorise.product(wide.mfa, spectrum, rank)
    whole, cut = (outputs(one, "mfa", calibration) for one in (wide, thin))
    sensitivity = measured["mfa"].sensitivity.double()
    metric = (sensitivity + factorise.RIDGE * sensitivity.diagonal().mean() * torch.eye(len(sensitivity))).numpy()

    def lost(outputs):
        return ((whole - outputs) @ metric * (whole - outputs)).sum(1).mean()

    assert lost(cut) == pytest.approx(spectrum.errors[rank:].sum().item(), rel=0.02)
    # Truncation by the outputs' own variance loses more of what matters.
    plain = Moments(measured["mfa"].mean, measured["mfa"].covariance, torch.eye(len(sensitivity)))
    thin.mfa = factorise.product(wide.mfa, factorise.spectrum(plain, wide.mfa.in_channels), rank)
    assert lost(cut) < 0.95 * lost(outputs(thin, "mfa", calibration))
    assert outputs(copy.deepcopy(thin), "mfa.0", calibration).std(0) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("name", ["mfa", "layer0", "blocks.2.res2net.1", "blocks.1.tdnn1", "attention.context"])
def test_at_full_rank_nothing_changes(wide, calibration, measured, name):
    layer = wide.get_submodule(name)
    spectrum = factorise.spectrum(measured[name], layer.weight[0].numel())
    product = copy.deepcopy(wide)
    product.set_submodule(name, factorise.product(layer, spectrum, spectrum.outputs))
    for one in calibration[:2]:
        torch.testing.assert_close(product(one), wide(one), rtol=1e-3, atol=1e-3)
    assert wide.get_submodule(name) is layer


def test_ranks_that_save_nothing_are_not_offered(wide, measured):
    for name, one in measured.items():
        spectrum = factorise.spectrum(one, wide.get_submodule(name).weight[0].numel())
        assert all(rank % factorise.MULTIPLE == 0 and rank <= spectrum.largest_rank for rank in spectrum.ranks())
        assert spectrum.errors.tolist() == sorted(spectrum.errors.tolist(), reverse=True)
        size = spectrum.inputs * spectrum.outputs
        assert spectrum.largest_rank * (spectrum.inputs + spectrum.outputs) < size
        assert (spectrum.largest_rank + factorise.MULTIPLE) * (spectrum.inputs + spectrum.outputs) >= size


def test_scaling_the_outputs_of_a_layer_leaves_what_its_ranks_lose(wide, measured):
    """Where the layers behind it undo the scale: an error of outputs 128 times as large moves the embedding as far."""
    moments_, inputs = measured["mfa"], wide.mfa.in_channels
    scaled = Moments(128 * moments_.mean, 128**2 * moments_.covariance, moments_.sensitivity / 128**2)
    before, after = (factorise.spectrum(each, inputs) for each in (moments_, scaled))
    torch.testing.assert_close(after.errors, before.errors, rtol=0, atol=1e-9 * before.errors.sum().item())
