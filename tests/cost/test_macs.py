"""fvcore's count of the PyTorch encoder, against the published figure and a count by hand."""

import pytest
import torch

from src.cost import macs
from src.encoder.load import prepare_speechbrain

PUBLISHED = {"channels": [1024] * 4 + [3072], "attention_channels": 128, "lin_neurons": 192}


def ecapa(**options):
    prepare_speechbrain()
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    return ECAPA_TDNN(80, kernel_sizes=[5, 3, 3, 3, 1], dilations=[1, 2, 3, 4, 1], **options).eval()


def test_published_architecture():
    layers = macs.count(ecapa(**PUBLISHED), torch.zeros(1, 301, 80))
    total = sum(layer.macs for layer in layers)
    assert round(total / 1e9, 4) == 5.6516 and round(2 * total / 1e9, 4) == 11.3031
    convolutions = [layer for layer in layers if layer.type == "Conv1d"]
    assert len(convolutions) == 38
    # What thop gives, 11.3189 GFLOPs: it counts a BatchNorm as four an element, fvcore as two.
    norms = total - sum(layer.macs for layer in convolutions)
    assert round(2 * (total + norms) / 1e9, 4) == 11.3189


def test_agrees_with_a_count_by_hand():
    width, mfa, attention, squeeze, dim, frames, scale = 16, 24, 6, 4, 10, 50, 4
    model = ecapa(
        channels=[width] * 4 + [mfa],
        attention_channels=attention,
        se_channels=squeeze,
        lin_neurons=dim,
        res2net_scale=scale,
    )
    found = {layer.name: layer for layer in macs.count(model, torch.zeros(1, frames, 80))}
    part = width // scale
    wanted = {
        "blocks.0.conv": 80 * 5 * width * frames,
        "blocks.0.norm": 2 * width * frames,
        "mfa.conv": 3 * width * mfa * frames,
        "mfa.norm": 2 * mfa * frames,
        "asp.tdnn.conv": 3 * mfa * attention * frames,
        "asp.tdnn.norm": 2 * attention * frames,
        "asp.conv": attention * mfa * frames,
        "asp_bn": 2 * 2 * mfa,
        "fc": 2 * mfa * dim,
    }
    for block in ("blocks.1", "blocks.2", "blocks.3"):
        for tdnn in ("tdnn1", "tdnn2"):
            wanted[f"{block}.{tdnn}.conv"] = width * width * frames
            wanted[f"{block}.{tdnn}.norm"] = 2 * width * frames
        for i in range(scale - 1):
            wanted[f"{block}.res2net_block.blocks.{i}.conv"] = part * part * 3 * frames
            wanted[f"{block}.res2net_block.blocks.{i}.norm"] = 2 * part * frames
        wanted[f"{block}.se_block.conv1"] = wanted[f"{block}.se_block.conv2"] = width * squeeze
    assert {name: layer.macs for name, layer in found.items()} == wanted
    assert found["mfa.conv"].output == (1, mfa, frames)
    assert sum(layer.parameters for layer in found.values()) == sum(p.numel() for p in model.parameters())


def test_rows_have_the_shares():
    layers = [macs.Layer("a", "Conv1d", (1, 2, 3), 7, 750), macs.Layer("b", "Conv1d", (1, 2), 5, 250)]
    rows = [dict(zip(macs.COLUMNS, row, strict=True)) for row in macs.rows(layers)]
    assert [row["output"] for row in rows] == ["1x2x3", "1x2"]
    assert [float(row["share"]) for row in rows] == [0.75, 0.25]
    assert float(rows[0]["gmacs"]) == pytest.approx(750e-9)
