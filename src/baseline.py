"""Stage `baseline`: the encoder as fp32.onnx, checked against SpeechBrain, and how accurate it is."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.baseline", alone=True)

import torch

from src.common import layout, params
from src.common.files import write_json
from src.data import manifest
from src.data.recordings import load_audio
from src.encoder import load
from src.encoder.export import export_onnx
from src.evaluate import accuracy, logmel_baseline
from src.evaluate.evaluation import evaluate
from src.runtime.engine import session
from src.runtime.errors import InputError

FP32 = layout.model("fp32")
# Utterances that are compared with SpeechBrain's own embedding, and the cosine below which it is not the same.
CHECKED, SAME = 16, 0.99999


def main() -> None:
    config = params.load()
    torch.set_num_threads(config.threads)
    rows = manifest.read()
    classifier = load.load(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    export_onnx(torch.nn.Sequential(*load.rewritten(classifier)), FP32)
    tested = manifest.select(rows, "test")
    parity = _parity(classifier, tested[:: max(1, len(tested) // CHECKED)])
    summary = evaluate(FP32, "fp32", rows, config)
    without_model = evaluate(logmel_baseline.embed, layout.LOGMEL, rows, config)
    write_json(layout.details("baseline"), {**summary, "parity_cosine": parity, layout.LOGMEL: without_model})
    write_json(layout.metrics("baseline"), accuracy.headline(summary))
    print(f"fp32: {accuracy.line(summary)}; cosine to SpeechBrain at least {parity:.7f}")


def _parity(classifier, rows):
    """The smallest cosine between fp32.onnx's embedding and SpeechBrain's, over these utterances."""
    model, cosines = session(FP32), []
    for row in rows:
        waveform = torch.from_numpy(load_audio(row))[None]
        ours = torch.from_numpy(model.run(None, {"waveform": waveform.numpy()})[0])
        with torch.inference_mode():
            theirs = classifier.encode_batch(waveform).reshape(1, -1)
        cosines.append(torch.cosine_similarity(ours.double(), theirs.double()).item())
    if min(cosines) < SAME:
        raise InputError(f"{FP32}: cosine {min(cosines):.6f} to SpeechBrain's embedding; {SAME} is needed")
    return min(cosines)
