"""How time grows with length and batch, and extraction with the number of utterances."""

import itertools
from collections.abc import Mapping, Sequence

from bench import extraction, timing
from bench.models import REFERENCE, Model

MODELS = (REFERENCE, "fp32-onnxruntime", "fp32-openvino", "qat-onnxruntime", "qat-openvino")
LENGTHS = (0.5, 1, 3, 10, 30, 60)  # seconds, at batch 1
BATCHES = (1, 2, 4, 8, 16)  # of SECONDS each
SECONDS = 3
# (file, workers, utterances); the last shows what ten times as many do to memory.
EXTRACTIONS = (("fp32", 1, 300), ("fp32", 2, 300), ("qat", 1, 300), ("qat", 2, 300), ("qat", 2, 3000))


def measure(
    models: Mapping[str, Model],
    rounds: int,
    budget: float,
    seed: int,
    lengths: Sequence[float] = LENGTHS,
    batches: Sequence[int] = BATCHES,
    extractions: Sequence[tuple[str, int, int]] = EXTRACTIONS,
) -> dict:
    """{lengths, batches, worst_step, extraction}, all on one thread but extraction.

    models: {name: models.Model}, REFERENCE first. lengths and batches are what `timing.measure` gives,
    worst_step is {model: {"seconds", "batch": the `worst_step`}}, extraction what `extraction.measure` gives
    for each.
    """
    settings = timing.measure(
        models, [(seconds, 1) for seconds in lengths] + [(SECONDS, batch) for batch in batches], 1, rounds, budget, seed
    )
    by_length, by_batch = settings[: len(lengths)], settings[len(lengths) :]
    return {
        "lengths": by_length,
        "batches": by_batch,
        "worst_step": {
            name: {"seconds": worst_step(by_length, "seconds", name), "batch": worst_step(by_batch, "batch", name)}
            for name in models
        },
        "extraction": [
            extraction.measure(f"models/{kind}.onnx", workers, utterances) for kind, workers, utterances in extractions
        ],
    }


def worst_step(points: list[dict], key: str, model: str) -> float | None:
    """From one setting to the next larger, by what factor time grew over that by which `key` did, at worst.

    Up to 1: no step worse than linear. None with fewer than two settings.
    """
    sizes = [(point[key], point["models"][model]["median_ms"]) for point in points]
    return max(
        ((later / earlier) / (larger / smaller) for (smaller, earlier), (larger, later) in itertools.pairwise(sizes)),
        default=None,
    )
