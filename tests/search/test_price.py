import numpy as np
import pytest

from src.cost.node_times import node_times
from src.quantize import ptq
from src.quantize.quantizer import GROUPS
from src.search.factorise import Shape, multiplications, shapes
from src.search.frames import ALL, FEWEST, Frames, fewer
from src.search.moments import FRAMES
from src.search.price import Milliseconds, Multiplications, milliseconds
from src.search.structure import EVERYTHING, WHOLE
from src.search.student import Source
from tests.quantize.conftest import exported

FLAT = Milliseconds((0.0, 0.0, 0.0, 0.0, 0.0), once=1.0, trunk=0.0, pooling=2.0)  # only pooling can be saved


@pytest.fixture(scope="module")
def students(wide, calibration, tmp_path_factory):
    """(file of the wide network in INT8, its convolutions), at every frame and at every fourth."""
    files = []
    for frames in (ALL, FEWEST):
        network = fewer(wide, frames)
        prepared = ptq.prepare(network, "minmax")
        ptq.calibrate_activations(prepared, calibration)
        path = exported(ptq.convert(prepared), tmp_path_factory.mktemp("price") / f"{frames.step}.onnx")
        files.append((path, [shape for shape in shapes(network, FRAMES).values() if shape.positions > 1]))
    return files


@pytest.fixture(scope="module")
def waveform():
    return np.random.default_rng(0).normal(size=(1, 16_000)).astype(np.float32)


def test_multiplications_of_a_shape_and_of_the_product_it_becomes():
    shape = Shape(inputs=48, outputs=32, kernel=3, positions=10)
    price = Multiplications()
    assert price.layer("mfa", shape) == 48 * 32 * 10 and price.rest(0.5, ALL) == 0
    assert sum(price.layer("mfa", half) for half in shape.product(8)) == 10 * (48 * 8 + 8 * 32)


@pytest.mark.parametrize("share", [0.75, 0.5, 0.35])
def test_bytes_are_those_of_the_students_weights(structures, calibration, share):
    """A share of them is reached; frames, which have no weights, stay."""
    source = Source(structures, calibration, "minmax", {**dict.fromkeys(GROUPS, 8), "blocks": 4})
    priced = structures.priced(source.bytes)
    whole, chosen = (priced.of_share(each) for each in (1.0, share))
    assert priced.cost(chosen) == pytest.approx(1e6 * source.cost(priced.network(chosen), FRAMES)[1])
    assert priced.cost(chosen) <= share * priced.cost(whole) and chosen.frames == ALL


def test_a_share_of_the_time_is_reached_by_what_takes_time(structures):
    """Where only pooling takes time, frames and channels of it go, and no rank changes."""
    chosen = structures.priced(FLAT).of_share(0.7)
    channels = chosen.channels or structures.networks[WHOLE].network.mfa.out_channels
    pooled = channels / structures.networks[WHOLE].network.mfa.out_channels / chosen.frames.step / chosen.frames.stride
    assert 1 + 2 * pooled <= 0.7 * 3 and not chosen.ranks
    assert structures.priced(FLAT).of_share(1.0) == EVERYTHING
    chosen = structures.of_share(0.6)
    assert structures.priced(Multiplications()).of_share(0.6) == chosen
    assert structures.cost(chosen) == multiplications(structures.network(chosen), FRAMES)


def test_times_are_of_every_node_and_the_table_of_convolutions_is_what_they_add_up_to(students, waveform):
    (path, layers), _ = students
    times = node_times(path, {"waveform": waveform}, 3)
    assert all(time >= 0 for time in times.values()) and any(operator == "QLinearConv" for operator, _ in times)
    measured = milliseconds(students, waveform, len(layers) - 2)
    assert min(measured.convolutions) >= 0 and min(measured.once, measured.trunk, measured.pooling) > 0
    assert measured.rest(1, ALL) == pytest.approx(measured.once + measured.trunk + measured.pooling)
    assert measured.rest(0.5, Frames(2, 2)) == pytest.approx(measured.once + measured.trunk / 2 + measured.pooling / 8)
    assert measured.layer("fc", Shape(512, 512, 1, 1)) == 0  # it is among the rest
    small, large = (measured.layer("mfa", Shape(size, size, 1, FRAMES)) for size in (32, 512))
    assert 0 < small < large
    nothing_pooled = milliseconds(students, waveform, len(layers) + 1)
    assert nothing_pooled.pooling == 0
