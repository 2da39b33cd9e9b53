"""Time our models beside their peers, with the accuracy of each; see bench/README.md.

Needs the pipeline's outputs in the working directory. Writes bench/results.json, bench/results.svg and
bench/growth.svg there, and prints the tables.
"""

import argparse
import os
import platform
import tempfile
from importlib.metadata import version

from tqdm import tqdm

from src.common import params
from src.common.command import reported
from src.common.files import write_json
from src.cost import cpu, latency
from src.data import manifest
from src.data.recordings import load_audio
from src.encoder import load
from src.runtime.audio import SHORTEST

try:
    import nncf  # noqa: F401
    import openvino  # noqa: F401
except ImportError as missing:
    raise SystemExit(f"error: {missing}; pip install -r requirements-bench.txt, or make bench") from None

from bench import accuracy, growth, peers, plot, table, timing
from bench.models import OURS, REFERENCE, ours

RESULTS, BARS, GROWTH = "bench/results.json", "bench/results.svg", "bench/growth.svg"
NAMES = (*peers.NAMES, *OURS)
VERSIONS = ("torch", "speechbrain", "onnxruntime", "openvino", "nncf", "onnx", "numpy")


def main() -> None:
    options = _options()
    config = params.load()
    rows = manifest.read()
    calibration = manifest.spread(manifest.needed(rows, "calibration"), config.ptq.utterances)
    tested = manifest.needed(rows, "test")
    only = {REFERENCE, *options.only}
    names = [name for name in NAMES if name in only or (name in growth.MODELS and not options.skip_growth)]
    files = {name: ours(name) for name in names if name in OURS}
    classifier = load.load(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    with tempfile.TemporaryDirectory() as folder:
        made = peers.Peers(classifier, [load_audio(row) for row in calibration], folder)
        others = [name for name in names if name in peers.NAMES]
        models = {name: getattr(made, name)() for name in tqdm(others, "peers", unit="model", disable=None)} | files
        most = max(options.threads)
        with latency.torch_threads(most):
            accuracies = accuracy.measure({name: model.on(most) for name, model in models.items()}, rows, config)
        compared = {name: model for name, model in models.items() if name in only}
        shapes = [(seconds, batch) for seconds in options.seconds for batch in options.batch]
        results = {
            "conditions": {
                "cpu": cpu.cpu() | {"cores": os.cpu_count()},
                "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
                "encoder": config.encoder.source,
                "calibration_utterances": len(calibration),
                "test_utterances": len(tested),
                "test_speakers": len({row.speaker for row in tested}),
            },
            "models": {
                name: {"title": model.title, "setting": model.setting, "size_mb": model.size_mb, **accuracies[name]}
                for name, model in models.items()
            },
            "settings": [
                setting
                for threads in options.threads
                for setting in timing.measure(compared, shapes, threads, options.rounds, options.budget, config.seed)
            ],
        }
        if not options.skip_growth:
            results["growth"] = growth.measure(
                {name: models[name] for name in growth.MODELS}, options.rounds, options.budget / 4, config.seed
            )
    write_json(RESULTS, results)
    plot.bars(BARS, results)
    if "growth" in results:
        plot.growth(GROWTH, results)
    print(table.text(results))


def _options():
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=_count, default=30, help="at most, in each setting (default: %(default)s)")
    parser.add_argument(
        "--budget",
        type=float,
        default=20,
        help="seconds that the rounds of a setting may take, as long as there are "
        f"{timing.FEWEST} (default: %(default)s)",
    )
    parser.add_argument("--threads", type=_count, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=_seconds, nargs="+", default=[1, 3, 10], help="lengths of the audio")
    parser.add_argument("--batch", type=_count, nargs="+", default=[1, 8])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=NAMES,
        default=list(NAMES),
        metavar="MODEL",
        help=f"beside {REFERENCE}: of {', '.join(NAMES)}",
    )
    parser.add_argument("--skip-growth", action="store_true", help="no growth with length and batch, no extraction")
    return parser.parse_args()


def _count(text):
    if not text.isdecimal() or text == "0":
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 1 is needed")
    return int(text)


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not SHORTEST <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r}: {SHORTEST} to 600 seconds are needed")
    return seconds


if __name__ == "__main__":
    with reported():
        main()
