"""Stage `release`: the model that the report chooses, ready to be passed on."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.release", alone=True)

import json
import shutil
from pathlib import Path

from src.common import layout, params
from src.common.files import atomic_write, sha256, write_json, write_text
from src.common.params import Params
from src.publish import bill, provenance
from src.runtime import calibration, engine
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError

FOLDER = Path("models/release")
PAGE = Path(__file__).parent / "publish/page"
OLDEST_ONNXRUNTIME = "1.18"  # the first that loads ONNX IR 10 and opset 21


def main() -> None:
    config = params.load()
    for path in (layout.RELEASE, layout.CARD):
        if not path.is_file():
            raise InputError(f"{path}: no such file; run the stage report")
    chosen = json.loads(layout.RELEASE.read_text(encoding="utf-8"))
    source = layout.model(chosen["model"])
    if not source.is_file():
        raise InputError(f"{source}: no such file; run the stage {layout.STAGES[chosen['model']]}")
    about = _config(config, chosen, source)
    component = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": chosen["title"],
        "hashes": [{"alg": "SHA-256", "content": about["sha256"]}],
    }
    materials = bill.bill(component, config.data.source == "synthetic" or config.encoder.source == layout.SHIPPED)
    with atomic_write(FOLDER) as beside:
        write_json(beside / "config.json", about)
        write_text(beside / "README.md", layout.CARD.read_text(encoding="utf-8"))
        write_json(beside / "bom.json", materials)
        write_text(beside / "LICENSES.md", bill.licences(materials))
        shutil.copytree(PAGE, beside, dirs_exist_ok=True)
        shutil.copyfile(source, beside / "model.onnx")
        if "cohort" in about:
            shutil.copyfile(layout.cohort(chosen["model"]), beside / about["cohort"]["file"])
    print(f"{FOLDER}: {chosen['title']}")


def _config(config: Params, chosen: dict, source: Path) -> dict:
    """config.json: what a program needs to use the model, what was measured, what it was made from."""
    calibration_file = layout.calibration(chosen["model"])
    fitted = calibration.read(calibration_file)
    calibration.cohort(fitted, calibration_file)  # that it is there, and the one meant
    session = engine.session(source)
    outputs = {output.name: output.shape[-1] for output in session.get_outputs()}
    return {
        "model": chosen["title"],
        "file": "model.onnx",
        "sha256": sha256(source),
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "input": engine.INPUT,
        "output": engine.OUTPUT,
        "weights": engine.weights(session) or "float",
        "embedding_size": outputs[engine.OUTPUT],
        "score": "cosine",
        "enrolments": config.evaluate.enrolments,
        **fitted.fields(),
        "onnxruntime": f">={OLDEST_ONNXRUNTIME}",
        "padding": "none: zeros after the speech change the embedding",
        "metrics": chosen["metrics"],
        "choice": chosen["choice"],
        "provenance": provenance.provenance(
            config,
            [layout.model("fp32"), source, calibration_file, *[layout.cohort(chosen["model"])] * bool(fitted.cohort)],
        ),
    }
