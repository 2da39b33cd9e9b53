"""Stage `release`: the model that the report chooses, ready to be passed on."""

import shutil
from pathlib import Path

from src.common import params
from src.common.command import running
from src.common.files import atomic_write, sha256, write_json, write_text
from src.evaluate.accuracy import FOLDER as METRICS
from src.evaluate.accuracy import KEYS
from src.publish import bill, card, provenance
from src.reporting import decision, prose, results
from src.runtime import calibration, engine
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError

FOLDER = Path("models/release")
_COST = ("gmacs", "gflops", "int8_mac_share", "params_million", "size_mb")


def main():
    config = params.load()
    found = results.load(config)
    model = decision.choice(found) or found.models["fp32"]
    source = Path(f"models/{model.name}.onnx")
    if not source.is_file():
        raise InputError(f"{source}: no such file; run the stage that writes it")
    readme, about = card.card(found, model), _config(config, found, model, source)
    component = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model.title,
        "hashes": [{"alg": "SHA-256", "content": about["sha256"]}],
    }
    synthetic = config.data.source == "synthetic" or config.encoder.source == prose.SHIPPED
    materials = bill.bill(component, synthetic)
    with atomic_write(FOLDER) as beside:
        write_json(beside / "config.json", about)
        write_text(beside / "README.md", readme)
        write_json(beside / "bom.json", materials)
        write_text(beside / "LICENSES.md", bill.licences(materials))
        shutil.copyfile(source, beside / "model.onnx")
    print(f"{FOLDER}: {model.title}")


def _config(config, found, model, source):
    """config.json: what a program needs to use the model, what was measured, what it was made from."""
    calibration_file = METRICS / "calibration" / f"{model.name}.json"
    fitted, group = calibration.read(calibration_file), found.groups[0]
    figures = model.over(group)
    kept = [*(key + end for key in KEYS for end in ("", "_ci")), "difference", "trials", "target_trials", "speakers"]
    outputs = {each.name: each.shape[-1] for each in engine.session(source).get_outputs()}
    return {
        "model": model.title,
        "file": "model.onnx",
        "sha256": sha256(source),
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "input": engine.INPUT,
        "output": engine.OUTPUT,
        "embedding_size": outputs[engine.OUTPUT],
        "score": "cosine",
        "normalisation": fitted.normalisation,
        "enrolments": config.evaluate.enrolments,
        "threshold_eer": fitted.threshold_eer,
        "scale": fitted.scale,
        "offset": fitted.offset,
        "metrics": {
            "speakers_are": group,
            **{key: figures[key] for key in kept if key in figures},
            **{key: model.cost[key] for key in _COST},
        },
        "provenance": provenance.provenance(config, ["models/fp32.onnx", source, calibration_file]),
    }


if __name__ == "__main__":
    with running():
        main()
