"""Stage `qat_search`: a smaller network in INT8 by quantisation-aware fine-tuning, under an Optuna search.

With --worker it only runs trials of the study in `qat_search.storage`, beside the stage, on any machine that has
the same data.
"""

if __name__ == "__main__":
    import sys

    from src.common.command import command

    command("src.qat_search", alone="--worker" not in sys.argv)

import copy

import torch
from pydantic import Field

from src.common import layout, params
from src.common.files import write_csv, write_json
from src.common.schema import Section
from src.cost import latency, onnx_macs
from src.data import manifest
from src.data.recordings import Waveform
from src.encoder import load
from src.encoder.export import export_onnx
from src.evaluate import accuracy, test_set, validation
from src.evaluate.evaluation import evaluate
from src.quantize import ptq
from src.quantize.qat import Hyperparameters
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError
from src.search import factorise, search, structure, student, study
from src.search.trial import Setup, train, validate

MODEL = layout.model("qat")
# Not an output of the stage: DVC deletes those before it runs, and finished trials must survive.
STUDIES = ".optuna"
HYPERPARAMETERS = tuple(Hyperparameters.__annotations__)
SIZES = ("trial", "share", *search.COLUMNS)  # columns of metrics/frontier.csv
TRIALS = (*SIZES, "train_loss", "relative_rate", *HYPERPARAMETERS)  # of metrics/trials.csv


class Options(Section):
    worker: bool = Field(False, description="run trials of a shared study, nothing else")


def main(worker=False):
    config = params.load()
    settings, device = config.qat_search, _device(config.device)
    torch.set_num_threads(config.threads)
    if worker and not settings.storage:
        raise InputError("params.yaml: qat_search.storage: a worker needs the URL of a database")
    if settings.storage:
        study.connect(settings.storage)  # what is wrong with it is said before the data are read
    rows = manifest.read()
    setup = _setup(config, rows, device)
    result = search.run(setup, settings, STUDIES, worker)
    if result is None:  # a worker is done
        return
    chosen = result.structure
    network, objective, untrained = _winner(setup, settings, result)
    export_onnx(torch.nn.Sequential(setup.front_end.cpu(), ptq.convert(network.cpu())), MODEL, config.quantize.weights)
    summary = evaluate(MODEL, "qat", rows, config, reference="fp32")
    cost = onnx_macs.cost(MODEL, config.profile.seconds)
    write_csv(layout.table("frontier"), SIZES, result.frontier)
    write_csv(layout.table("trials"), TRIALS, result.trials)
    write_csv(layout.table("spectra"), factorise.COLUMNS, factorise.rows(setup.source.structures.spectra, chosen.ranks))
    write_json(
        layout.details("qat_search"),
        {
            **summary,
            **cost,
            "n_trials": len(result.trials),
            "passed_validation": int(result.chosen is not None),
            "speakers_needed": result.speakers_needed,
            "chosen": _chosen(result.chosen),
            "width": chosen.width,
            "channels": chosen.channels,
            **chosen.frames._asdict(),
            "objective": objective,
            "objective_untrained": untrained,
            "objective_fp32": result.reference,
        },
    )
    write_json(layout.metrics("qat_search"), accuracy.headline(summary) | onnx_macs.headline(cost))
    write_json(layout.latency("qat"), latency.against_fp32("qat", MODEL, config.profile, config.seed))
    if result.chosen is None:
        which = (
            "nothing smaller is shown to lose less than the margins on validation speakers (what loses nothing would be "
            f"on about {result.speakers_needed}); this is the plain INT8 model"
        )
    elif result.chosen["trial"] == search.UNTRAINED:
        which = "smaller and not trained"
    else:
        which = f"trial {result.chosen['trial'] + 1} of {len(result.trials)}"
    print(f"qat: {accuracy.line(summary)}; {cost['gmacs']:.4f} GMACs, {cost['size_mb']:.2f} MB; {which}")


def _setup(config, rows, device):
    heard = [row for split in manifest.TRAINING for row in manifest.needed(rows, split)]
    validated = manifest.needed(rows, "validation")
    speech = validation.speech(validated, test_set.enrolments(config), test_set.load(rows, config))
    front_end, network = load.plain(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    network.requires_grad_(False)
    features = ptq.calibration_features(front_end, rows, config.ptq.utterances)
    with torch.no_grad():
        frames = front_end(torch.zeros(1, round(config.profile.seconds * SAMPLE_RATE))).shape[1]
    structures = structure.measure(network, features if config.qat_search.structure else [])
    return Setup(
        source=student.Source(structures, features, config.ptq.observer, ptq.weight_bits(config.quantize)),
        teacher=copy.deepcopy(network),
        front_end=front_end,
        finetune=_speech(heard),
        validation=_speech(validated),
        speech=speech,
        margins=config.evaluate.margins,
        frames=frames,
        samples=round(config.qat_search.crop_seconds * SAMPLE_RATE),
        draws=config.qat_search.steps * max(config.qat_search.batch_size),
        device=device,
        seed=config.seed,
    )


def _winner(setup, settings, result):
    """(student, its validation objective, that before any training): of the chosen trial, fine-tuned for longer; of the
    chosen size that nobody trained; or of everything, the plain INT8 model."""
    network = setup.source.structures.network(result.structure)
    student = setup.source.untrained(network).to(setup.device)
    row = result.chosen
    if row and row["trial"] == search.UNTRAINED:  # validated on the frontier
        return student, row["objective"], row["objective"]
    untrained = validate(student, setup).objective
    if row is None:
        return student, untrained, untrained
    student = result.student  # training repeats exactly
    if student is None:
        student, _ = train(setup, network, search.hyperparameters(row), settings.final_steps, "chosen trial")
    return student, validate(student, setup).objective, untrained


def _chosen(row):
    """The number of a trial and what it was made with; metrics/trials.csv has the rest."""
    if row is None:
        return {"trial": search.UNTRAINED, "share": 1.0}
    return {name: row[name] for name in ("trial", "share", *HYPERPARAMETERS) if name in row}


def _speech(rows):
    """The waveforms, which stay in their files, and the speakers of manifest rows."""
    return [Waveform(row) for row in rows], [row.speaker for row in rows]


def _device(name):
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("params.yaml: device: cuda, but torch finds no CUDA device here; allowed: auto, cpu")
    return "cuda" if available and name != "cpu" else "cpu"
