"""What the other stages leave behind, made by their own code from a few random embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.common import layout, params
from src.common.files import write_csv, write_json
from src.cost import latency, macs
from src.data import manifest
from src.evaluate import accuracy, conditions, result, score_calibration, scores, test_set, validation
from src.reporting import prose
from tests.evaluate import simulation

ROOT = Path(__file__).parents[2]
SPEAKERS, UTTERANCES, DIM = 16, 6, 24
# How far quantisation moves an embedding, beside speakers that differ by 1 and utterances that differ by 0.8.
DAMAGE = {"fp32": 0, "ptq": 0.2, "qat": 0.1}
COST = {
    "gmacs": 5.4078,
    "gflops": 10.8156,
    "int8_mac_share": 0.996,
    "int8_mac_share_in_file": 0.998,
    "front_end_gmacs": 0.0215,
    "params_million": 20.77,
    "size_mb": 21.5,
}
LAYERS = ["blocks.0.conv", "blocks.0.norm", "mfa.conv", "asp.tdnn.conv", "asp.conv", "asp_bn", "fc"] + [
    f"blocks.{block}.{part}"
    for block in (1, 2, 3)
    for part in ("tdnn1.conv", *(f"res2net_block.blocks.{i}.conv" for i in range(7)), "tdnn2.conv", "se_block.conv1")
]


def write(seen_speakers=0, damage=DAMAGE, sexes=False, parts=("",), **changes):
    """Write params.yaml, data/manifest.csv and metrics/ into the working directory; gives the parameters.

    sexes: whether the breakdown is by sex too. parts: the data set's own splits of a speaker's utterances, the last
    for all that remain. changes: sections of params.yaml, {key: value}.
    """
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["evaluate"]["bootstrap"] = 100
    for section, values in changes.items():
        raw[section].update(values)
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    config = params.load()
    rows = [
        manifest.Row(
            f"s{s:02}/u{u}",
            f"s{s:02}",
            "test",
            f"data/audio/{s * UTTERANCES + u:05}.flac",
            3.0,
            int(s < seen_speakers),
            part=parts[min(u, len(parts) - 1)],
        )
        for s in range(SPEAKERS)
        for u in range(UTTERANCES)
    ]
    Path("data").mkdir(exist_ok=True)
    manifest.write(rows)
    measured = _accuracies(rows, damage, config)
    write_json(
        layout.details("baseline"), {**measured["fp32"], "parity_cosine": 0.9999999, "logmel": measured["logmel"]}
    )
    write_json(layout.details("ptq"), {**measured["ptq"], **COST, "size_mb": 5.9, "calibration_utterances": 64})
    trials = [
        {
            "trial": i,
            "objective": value,
            "gmacs": 4.0 - i,
            "size_mb": 20.0 - i,
            "train_loss": 0.01 * value,
            "eer_difference": 0.001 * i,
            "eer_difference_low": -0.001,
            "eer_difference_high": 0.0034 * i,
            "top1_difference": -0.002 * i,
            "top1_difference_low": -0.006 * i,
            "top1_difference_high": 0.001,
            "noninferior": int(i < 2),
            "share": 0.9 - 0.1 * i,
            "learning_rate": 10 ** -(3 + i / 2),
            "weight_decay": 1e-5,
            "batch_size": 8,
            "speaker_loss_weight": 0.1 * i,
            "front": int(i != 2),
        }
        for i, value in enumerate((1.21, 1.24, 1.28, 1.26))
    ]
    write_csv("metrics/trials.csv", list(trials[0]), trials)
    sizes = [{**row, "trial": -1, "share": 0.5 - 0.1 * i, "gmacs": 2.5 - 0.5 * i} for i, row in enumerate(trials)]
    write_csv("metrics/frontier.csv", list(sizes[0]), sizes)
    write_csv(
        "metrics/spectra.csv",
        ("layer", "components", "explained", "rank"),
        [
            (layer, n, 1 - 0.5 ** (n / 16), rank)
            for layer, rank in (("mfa", 32), ("blocks.1.tdnn1", 64))
            for n in (16, 32, 48, 64)
        ],
    )
    write_json(
        layout.details("qat_search"),
        {
            **measured["qat"],
            **COST,
            "size_mb": 5.9,
            "n_trials": len(trials),
            "passed_validation": 1,
            "speakers_needed": 321,
            "chosen": {name: trials[1][name] for name in ("trial", "share", *prose.HYPERPARAMETERS)},
            "width": 0.5,
            "channels": None,
            "step": 2,
            "stride": 1,
            "objective": 1.23,
            "objective_untrained": 1.29,
            "objective_fp32": 1.22,
        },
    )
    _costs()
    _breakdown(sexes)
    return config


def _accuracies(rows, damage, config):
    test = test_set.make_test(rows, config.evaluate.enrolments, None, config.evaluate.max_trials, config.seed)
    rng = np.random.default_rng(7)
    clean = np.repeat(rng.standard_normal((SPEAKERS, DIM)), UTTERANCES, axis=0)
    clean += 0.8 * rng.standard_normal(clean.shape)
    speech = validation.speech(simulation.rows(40, UTTERANCES), config.evaluate.enrolments, test)
    heard = simulation.embeddings(rng, 40, UTTERANCES, 0.6)[0]
    measured, reference, first = {}, None, None
    for name, size in {**damage, "logmel": 1.5}.items():
        embeddings = clean + size * rng.standard_normal(clean.shape)
        cosines = scores.cosine(embeddings, test.verification)
        outcome = result.score_test(embeddings, test, score_calibration.fit(cosines, test.verification.targets))
        result.write(name, test, outcome)
        figures = validation.measure(heard + 0.3 * size * rng.standard_normal(heard.shape), speech)
        first = first or figures
        compared = validation.losses(figures, first) if reference else None
        measured[name] = {
            **accuracy.summarise(test, outcome, config, reference),
            "validation": validation.summary(speech, figures, compared, config.evaluate.margins),
        }
        reference = reference or outcome
    return measured


def _breakdown(sexes):
    rows = [
        (
            condition,
            level,
            model,
            eer + extra,
            eer - 0.01,
            eer + 0.02,
            *[extra, -0.01, 0.02][: 3 * bool(extra)],
            *[""] * (3 * (not extra)),
        )
        for condition, levels in (
            ("seconds", ("1", "full")),
            ("enrolment_seconds", ("1", "full")),
            ("snr", ("clean", "0")),
            ("channel", ("clean", "opus")),
            ("channel_both", ("clean", "opus")),
            *([("sex", ("same", "different"))] if sexes else []),
        )
        for level, eer in zip(levels, (0.1, 0.05))
        for model, extra in (("fp32", 0), ("ptq", 0.01), ("qat", 0.004))
    ]
    write_csv("metrics/breakdown.csv", conditions.COLUMNS, rows)
    write_csv(
        "metrics/sensitivity.csv",
        ("group", "embedding_sqnr_db", "embedding_cosine", "output_sqnr_db"),
        [("layer0", 41.75, 0.99995, 35.9), ("fc", 34.87, 0.9998, 34.87), ("all", 32.29, 0.9996, 32.29)],
    )


def _costs():
    layers = [macs.Layer(name, "Conv1d", (1, 8, 301), 64, 10**6 * (i + 3)) for i, name in enumerate(LAYERS)]
    write_csv("metrics/macs.csv", macs.COLUMNS, macs.rows(layers))
    write_json(
        layout.details("profile"),
        {
            **COST,
            "network": "ECAPA-TDNN",
            "seconds": 3.0,
            "gmacs": 5.6516,
            "gflops": 11.3031,
            "rewritten_gmacs": 5.4078,
            "int8_mac_share": 0.0,
            "checkpoint_mb": 83.3,
        },
    )
    for model, names in (("fp32", ("speechbrain", "fp32")), ("ptq", ("fp32", "ptq")), ("qat", ("fp32", "qat"))):
        calls = {
            name: lambda wave, copies=copies: np.sort(np.tile(wave, copies)) for name, copies in zip(names, (6, 3))
        }
        write_json(layout.latency(model), latency.measure(calls, 0.5, 5, 1))


def change(path, **values):
    """Change keys of a JSON file."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    write_json(path, content | values)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
