import copy

import numpy as np
import pytest
import torch

from src.encoder.networks import rewrite
from src.search import factorise
from tests.encoder.helpers import NETWORK, random_ecapa

WIDE = {**NETWORK, "channels": [64, 64, 64, 96], "attention_channels": 64}


@pytest.fixture(scope="module")
def network():
    return rewrite(random_ecapa(WIDE)).requires_grad_(False)


@pytest.fixture(scope="module")
def features():
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(1, 50 + 7 * i, 80, generator=rng) for i in range(8)]


@pytest.fixture(scope="module")
def spectra(network, features):
    return factorise.spectra(network, features)


def outputs(network, name, features):
    frames = []
    hook = network.get_submodule(name).register_forward_hook(lambda *args: frames.append(args[2][0, :, 0].T))
    for utterance in features:
        network(utterance)
    hook.remove()
    return torch.cat(frames).detach().double().numpy()


def test_spectrum_is_that_of_the_layers_outputs(network, features, spectra):
    assert {"mfa", "blocks.1.tdnn1", "blocks.2.tdnn2", "attention.x", "attention.out"} == {
        name for name in spectra if name.split(".")[-1] != "tdnn1" or name == "blocks.1.tdnn1"
    } - {"blocks.1.tdnn2"}
    values = outputs(network, "mfa", features)
    np.testing.assert_allclose(spectra["mfa"].mean, values.mean(0), atol=1e-4)
    expected = np.linalg.eigvalsh(np.cov(values.T, bias=True))[::-1]
    np.testing.assert_allclose(spectra["mfa"].variances, expected, atol=1e-4 * expected[0])


def test_projection_loses_the_variance_that_it_says(network, features, spectra):
    rank = 32
    product = factorise.factorise(network, spectra, {"mfa": rank})
    whole, cut = (outputs(one, "mfa", features) for one in (network, product))
    lost = ((whole - cut) ** 2).sum(1).mean()
    assert lost == pytest.approx(spectra["mfa"].variances[rank:].sum().item(), rel=1e-3)
    weight = network.mfa.weight.flatten(1).double().numpy()
    left, middle, right = np.linalg.svd(weight)
    plain = (left[:, :rank] * middle[:rank]) @ right[:rank]
    # The usual truncation, of the weights themselves, is worse on this speech.
    inputs = np.linalg.lstsq(weight, (whole - network.mfa.bias.double().numpy()).T, rcond=None)[0]
    assert lost < (((weight - plain) @ inputs) ** 2).sum(0).mean()
    inner = outputs(product, "mfa.0", features)
    np.testing.assert_allclose(inner.std(0), 1, rtol=1e-3)


def test_at_full_rank_nothing_changes(network, features, spectra):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    product = factorise.factorise(network, spectra, {name: len(spectrum.mean) for name, spectrum in spectra.items()})
    for one in features[:2]:
        torch.testing.assert_close(product(one), network(one), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("share", [0.9, 0.8, 0.7])
def test_ranks_keep_within_the_share_and_lose_little(network, spectra, share):
    chosen = factorise.layer_ranks(spectra, network, share)
    product = factorise.factorise(network, spectra, chosen)
    left = factorise.multiplications(product) / factorise.multiplications(network)
    assert share - 0.1 < left <= share
    assert all(rank % factorise.MULTIPLE == 0 and rank <= spectra[name].largest_rank for name, rank in chosen.items())


def test_more_multiplications_never_lose_more(network, spectra):
    def lost(share):
        chosen = factorise.layer_ranks(spectra, network, share)
        return sum(
            (spectra[name].variances[rank:].sum() / spectra[name].variances.sum()).item()
            for name, rank in chosen.items()
        )

    losses = [lost(share) for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    assert losses == sorted(losses, reverse=True) and losses[-1] == 0
    assert factorise.layer_ranks(spectra, network, 0.0) == factorise.layer_ranks(spectra, network, 0.01)


def test_scaling_the_outputs_of_a_layer_leaves_the_ranks(network, features, spectra):
    """A layer's loss is a share of its own variance: one that is large in numbers is not worth more."""
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        scaled.attention.x.weight *= 100
    measured = factorise.spectra(scaled, features)
    ratio = measured["attention.x"].variances[0] / spectra["attention.x"].variances[0]
    assert ratio.item() == pytest.approx(1e4, rel=1e-3)
    changed = {**spectra, "attention.x": measured["attention.x"]}  # of the layers after it the outputs differ in kind
    for share in (0.7, 0.8, 0.9):
        assert factorise.layer_ranks(changed, scaled, share) == factorise.layer_ranks(spectra, network, share)
