"""Stage `qat_search`: a smaller network in INT8 by quantisation-aware fine-tuning, under an Optuna search.

With --worker it only runs trials of the study in `qat_search.storage`, beside the stage, on any machine that has
the same data.
"""

if __name__ == "__main__":
    import sys

    from src.common.command import command

    command("src.qat_search", alone="--worker" not in sys.argv)

import copy
from dataclasses import asdict

import torch
from pydantic import Field

from src.common import layout, params
from src.common.files import write_csv, write_json
from src.common.schema import Section
from src.cost import latency, onnx_macs
from src.data import manifest
from src.data.recordings import Waveform, load_audio
from src.encoder import load
from src.encoder.export import export_onnx
from src.evaluate import accuracy, test_set, validation
from src.evaluate.evaluation import evaluate
from src.quantize import ptq
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError
from src.search import factorise, search, student, study
from src.search.trial import Setup, train

MODEL = layout.model("qat")
# Not an output of the stage: DVC deletes those before it runs, and finished trials must survive.
STUDIES = ".optuna"


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
    network, layer_ranks = _winner(setup, settings, result.chosen)
    export_onnx(torch.nn.Sequential(setup.front_end.cpu(), ptq.convert(network.cpu())), MODEL, config.quantize.weights)
    summary = evaluate(MODEL, "qat", rows, config, reference="fp32")
    cost = onnx_macs.cost(MODEL, config.profile.seconds)
    columns = list(result.trials[0])
    write_csv(layout.table("trials"), columns, result.trials)
    write_csv(layout.table("pareto"), columns, [row for row in result.trials if row["front"]])
    write_csv(layout.table("spectra"), factorise.COLUMNS, factorise.rows(setup.source.spectra, layer_ranks))
    write_json(
        layout.details("qat_search"),
        {
            **summary,
            **cost,
            "n_trials": len(result.trials),
            "passed_validation": int(result.chosen is not None),
            "speakers_needed": result.speakers_needed,
            "chosen": _chosen(result.chosen),
            "objective_untrained": result.before,
            "objective_fp32": result.reference,
        },
    )
    write_json(layout.metrics("qat_search"), accuracy.headline(summary) | onnx_macs.headline(cost))
    write_json(layout.latency("qat"), latency.against_fp32("qat", MODEL, config.profile, config.seed))
    which = (
        f"trial {result.chosen['trial'] + 1} of {len(result.trials)}"
        if result.chosen
        else (
            f"none of {len(result.trials)} trials is shown to lose less than the margins on validation speakers (one that "
            f"loses nothing would be on about {result.speakers_needed}); this is the plain INT8 model"
        )
    )
    print(f"qat: {accuracy.line(summary)}; {cost['gmacs']:.4f} GMACs, {cost['size_mb']:.2f} MB; {which}")


def _setup(config, rows, device):
    calibration = manifest.spread(manifest.needed(rows, "calibration"), config.ptq.utterances)
    finetune, validated = (manifest.needed(rows, split) for split in ("finetune", "validation"))
    speech = validation.speech(validated, test_set.enrolments(config), test_set.load(rows, config))
    front_end, network = load.plain(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    network.requires_grad_(False)
    with torch.no_grad():
        features = [front_end(torch.from_numpy(load_audio(row))[None]) for row in calibration]
        frames = front_end(torch.zeros(1, round(config.profile.seconds * SAMPLE_RATE))).shape[1]
    spectra = factorise.spectra(network, features) if config.qat_search.structure else {}
    bits = ptq.weight_bits(config.quantize)
    return Setup(
        source=student.Source(network, features, spectra, config.ptq.observer, bits),
        teacher=copy.deepcopy(network),
        front_end=front_end,
        finetune=_speech(finetune),
        validation=_speech(validated),
        speech=speech,
        margins=config.evaluate.margins,
        frames=frames,
        device=device,
        seed=config.seed,
    )


def _winner(setup, settings, chosen):
    """(student, its layers' ranks): of the chosen trial, fine-tuned for longer; without one, the plain INT8 model."""
    if chosen is None:
        return setup.source.student({}), {}
    layer_ranks = setup.source.layer_ranks(chosen["kept_macs"])
    hyperparameters = search.hyperparameters(chosen)
    network, _ = train(setup, settings, layer_ranks, hyperparameters, settings.final_steps, "chosen trial")
    return network, layer_ranks


def _chosen(row):
    """The number of a trial and what it was made with; metrics/trials.csv has the rest."""
    if row is None:
        return {"trial": search.UNTRAINED}
    return {name: row[name] for name in ("trial", "kept_macs", *asdict(search.hyperparameters(row)))}


def _speech(rows):
    """The waveforms, which stay in their files, and the speakers of manifest rows."""
    return [Waveform(row) for row in rows], [row.speaker for row in rows]


def _device(name):
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("params.yaml: device: cuda, but torch finds no CUDA device here; allowed: auto, cpu")
    return "cuda" if available and name != "cpu" else "cpu"
