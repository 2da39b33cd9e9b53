import pytest
import torch

from src.search import structure
from src.search.factorise import multiplications
from src.search.structure import Structure, Structures


def _left(structures, chosen):
    whole = multiplications(structures.networks[None].network, 300)
    return multiplications(structures.network(chosen), 300) / whole


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_a_structure_keeps_within_the_share(structures, share):
    chosen = structures.of_share(share)
    left = _left(structures, chosen)
    assert share - 0.1 < left <= share


def test_smaller_ones_move_the_embedding_more_and_there_is_a_smallest(structures):
    def error(share):
        chosen = structures.of_share(share)
        each = structures.networks[chosen.channels]
        return each.error + sum(dict(each.spectra[name].ranks())[rank] for name, rank in chosen.ranks.items())

    errors = [error(share) for share in (1.0, 0.9, 0.7, 0.5, 0.4)]
    assert errors == sorted(errors) and errors[0] == 0
    smallest = structures.of_share(0.0)
    assert smallest == structures.of_share(0.01) and smallest.channels == min(filter(None, structures.networks))


def test_everything_is_the_network_itself(structures, wide, calibration):
    assert structures.of_share(1.0) == Structure(None, {})
    assert torch.equal(structures.network(structures.of_share(1.0))(calibration[0]), wide(calibration[0]))


def test_channels_of_the_aggregation_layer_are_dropped_where_ranks_alone_do_not_reach(structures, calibration):
    without = Structures({None: structures.networks[None]})
    least = _left(structures, without.of_share(0.0))
    chosen = structures.of_share(0.9 * least)
    assert chosen.channels and _left(structures, chosen) <= 0.9 * least
    assert (
        structures.network(chosen)(calibration[0]).shape
        == structures.network(without.of_share(1.0))(calibration[0]).shape
    )


def test_without_calibration_speech_nothing_can_be_left_out(wide):
    alone = structure.measure(wide, [])
    assert alone.of_share(0.2) == Structure(None, {}) and not alone.spectra
