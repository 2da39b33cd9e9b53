import pytest
import torch

from src.encoder.networks import rewrite
from src.search import structure
from src.search.factorise import multiplications
from src.search.frames import ALL
from src.search.moments import FRAMES
from src.search.structure import EVERYTHING, WHOLE, WIDTHS, Structure, Structures
from tests.encoder.helpers import XVECTOR, random_xvector
from tests.search.test_aggregation import distance


def _left(structures, chosen):
    whole = multiplications(structures.networks[WHOLE].network, 300)
    return multiplications(structures.network(chosen), 300) / whole


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_a_structure_keeps_within_the_share(structures, share):
    chosen = structures.of_share(share)
    left = _left(structures, chosen)
    assert share - 0.1 < left <= share


def test_smaller_ones_move_the_embedding_more_and_there_is_a_smallest(structures):
    errors = [structures.error(structures.of_share(share)) for share in (1.0, 0.9, 0.7, 0.5, 0.4)]
    assert errors == sorted(errors) and errors[0] == 0
    smallest = structures.of_share(0.0)
    assert smallest == structures.of_share(0.01) and smallest[:2] == (
        min(WIDTHS),
        min(filter(None, (channels for _, channels in structures.networks))),
    )
    assert smallest.frames.step * smallest.frames.stride == 4


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_training_one_network_leaves_those_that_are_made_after_it_as_they_were(structures, share):
    chosen = structures.of_share(share)
    before = {name: value.clone() for name, value in structures.network(chosen).state_dict().items()}
    with torch.no_grad():
        for parameter in structures.network(chosen).parameters():
            parameter += 1
    after = structures.network(chosen).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_everything_is_the_network_itself(structures, wide, calibration):
    assert structures.of_share(1.0) == EVERYTHING
    assert torch.equal(structures.network(structures.of_share(1.0))(calibration[0]), wide(calibration[0]))


def test_channels_of_the_aggregation_layer_are_dropped_where_ranks_alone_do_not_reach(structures, calibration):
    without = Structures({WHOLE: structures.networks[WHOLE]}, structures.frames)
    least = _left(structures, without.of_share(0.0))
    chosen = structures.of_share(0.96 * least)
    assert chosen.channels and _left(structures, chosen) <= 0.96 * least
    assert (
        structures.network(chosen)(calibration[0]).shape
        == structures.network(without.of_share(1.0))(calibration[0]).shape
    )


@pytest.mark.parametrize("share", [0.85, 0.7, 0.6, 0.5, 0.45, 0.4])
def test_no_other_channels_or_frames_move_the_embedding_less_within_a_share(structures, share):
    """Whatever is left of the share where the best of one kind meets the best of another would be given away."""
    most = share * structures.cost(EVERYTHING)
    chosen = structures.of_share(share)
    others = [base.within(most) for base in structures._bases.values()]
    assert structures.error(chosen) == pytest.approx(min(error for error, left, _ in others if left <= most))
    assert structures.cost(chosen) <= most


def test_one_utterance_says_nothing_of_linear_layers(wide, calibration):
    alone = structure.measure(wide, calibration[:1])
    assert "mfa" in alone.spectra and "attention.context" not in alone.spectra
    for share in (0.6, 0.0):
        assert alone.network(alone.of_share(share))(calibration[1]).isfinite().all()


def test_a_network_of_which_nothing_can_be_left_out_stays_whole():
    network = rewrite(random_xvector(XVECTOR)).requires_grad_(False)
    alone = structure.measure(network, [torch.randn(1, 60, network.mels)])
    assert not alone.spectra and alone.of_share(0.99).ranks == {}


def test_without_calibration_speech_nothing_can_be_left_out(wide):
    alone = structure.measure(wide, [])
    assert alone.of_share(0.2) == EVERYTHING and not alone.spectra


def test_what_a_structure_is_predicted_to_move_the_embedding_by_is_about_what_it_does(structures, wide, calibration):
    """To first order, with errors of layers that add up as if independent: within a factor of two where it is small."""
    heard = [utterance[:, :FRAMES] for utterance in calibration]
    for some, error in structures.frames.items():
        alone = structures.network(Structure(*WHOLE, some, {}))
        assert distance(alone, wide, heard) == pytest.approx(error, rel=1e-3)
    for name in ("layer0", "blocks.1.tdnn2", "mfa"):
        alone = Structure(*WHOLE, ALL, {name: structures.spectra[name].largest_rank})
        moved = distance(structures.network(alone), wide, heard)
        assert 0.5 * moved < structures.error(alone) < 2 * moved
