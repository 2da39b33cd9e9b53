import pytest
import torch
from torch import nn

from src.encoder.networks import rewrite
from src.search.factorise import shapes
from src.search.frames import ALL, Frames, choices, fewer
from tests.encoder.helpers import RESNET, XVECTOR, random_resnet, random_xvector


class Convolutions(nn.Module):
    """One after the other, as a plain network's."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def convolution(kernel, dilation=1, mode="reflect"):
    return nn.Conv2d(
        4, 4, (1, kernel), dilation=(1, dilation), padding=(0, dilation * (kernel - 1) // 2), padding_mode=mode
    )


@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("mode", ["reflect", "zeros"])
def test_where_every_value_lies_on_a_computed_frame_each_is_what_it_was(step, mode):
    network = Convolutions(convolution(5), convolution(3, 2 * step, mode=mode), convolution(1), convolution(5, step))
    x = torch.randn(1, 4, 1, 61)
    torch.testing.assert_close(fewer(network, Frames(step, 1))(x), network(x)[..., ::step])


@pytest.mark.parametrize(
    ("step", "dilation", "kernel", "taps"), [(2, 1, 3, 3), (2, 3, 3, 5), (3, 2, 3, 3), (4, 3, 5, 5)]
)
def test_between_frames_values_that_go_along_a_line_are_what_they_were(step, dilation, kernel, taps):
    network = Convolutions(convolution(1), convolution(kernel, dilation))
    line = torch.arange(80.0).expand(1, 4, 1, 80) * torch.randn(1, 4, 1, 1)
    resampled = fewer(network, Frames(step, 1))
    assert resampled.layers[1].kernel_size == (1, taps)
    inside = slice(3, -4)  # where nothing is reflected
    torch.testing.assert_close(
        resampled(line)[..., inside], network(line)[..., ::step][..., inside], rtol=1e-4, atol=1e-4
    )


def test_a_later_stride_stays_and_groups_and_a_missing_bias_are_kept():
    grouped = nn.Conv2d(4, 4, (3, 3), stride=2, padding=1, groups=2, bias=False)
    resampled = fewer(Convolutions(convolution(3), grouped), Frames(2, 1)).layers[1]
    assert (resampled.stride, resampled.groups, resampled.bias, resampled.padding) == ((2, 2), 2, None, (1, 1))
    # Half of what was read one frame before and one after now comes from the frame itself.
    before, middle, after = grouped.weight.unbind(3)
    torch.testing.assert_close(
        resampled.weight, torch.stack([before / 2, middle + (before + after) / 2, after / 2], dim=3)
    )


@pytest.mark.parametrize("stride", [2, 3])
def test_a_stride_pools_every_so_manieth_frame_of_the_same_outputs(wide, calibration, stride):
    frames = {}
    for network in (wide, fewer(wide, Frames(1, stride))):
        hook = network.mfa.register_forward_hook(lambda _, __, output: frames.update({len(frames): output}))
        network(calibration[0])
        hook.remove()
    torch.testing.assert_close(frames[1], frames[0][..., ::stride])


def kinds(wide):
    return {
        "ecapa": wide,
        "xvector": rewrite(random_xvector(XVECTOR)).requires_grad_(False),
        "resnet": rewrite(random_resnet(RESNET), 80).requires_grad_(False),
    }


@pytest.mark.parametrize("kind", ["ecapa", "xvector", "resnet"])
def test_every_kind_is_computed_at_all_choices_and_the_network_itself_stays(wide, kind):
    network = kinds(wide)[kind]
    features = torch.randn(2, 60, network.mels)
    before = network(features)
    whole = shapes(network, 60)
    assert choices(network)[0] == ALL
    for frames in choices(network):
        smaller = fewer(network, frames)
        assert smaller(features).isfinite().all() and smaller(features).shape == before.shape
        last = [name for name, shape in whole.items() if shape.positions > 1][-1]
        expected = -(-whole[last].positions // frames.step // frames.stride)
        assert abs(shapes(smaller, 60)[last].positions - expected) <= whole[last].positions // 20
    assert torch.equal(network(features), before)
