"""Every kind of network goes through the same commands, with no change but `encoder.source`."""

import json

import pytest

from tests.encoder.helpers import RESNET, XVECTOR, random_resnet, random_xvector, saved
from tests.workspace import SMALL, STAGES, read, run, run_all, workspace

TITLES = {"xvector": "x-vector", "resnet": "ResNet"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TITLES)
def test_all_stages_verify_and_embed(tmp_path, name):
    make, arguments = {"xvector": (random_xvector, XVECTOR), "resnet": (random_resnet, RESNET)}[name]
    folder, encoder = tmp_path / "run", tmp_path / "encoder"
    saved(encoder, arguments, make(arguments, mild=True))
    # Of maps of mels and frames the search has no structure yet.
    search = {**SMALL["qat_search"], "structure": name != "resnet"}
    workspace(folder, {**SMALL, "encoder": {"source": str(encoder)}, "qat_search": search})
    run_all(folder, *STAGES)
    for stage in ("ptq", "qat_search"):
        assert read(folder, stage)["int8_mac_share"] >= 0.99
    for text in ("metrics/report.md", "models/release/README.md"):
        assert TITLES[name] in (folder / text).read_text() and "ECAPA-TDNN in" not in (folder / text).read_text()
    enrol, test = sorted((folder / "data/audio").glob("*.flac"))[:2]
    output = run(folder, "verify", str(enrol), str(test), "--json", "--model", "models/release/model.onnx")
    assert output.returncode in (0, 1) and -1 <= json.loads(output.stdout)["score"] <= 1, output.stderr
    assert run(folder, "embed", "data/audio", "--out", "embeddings.npz").returncode == 0
